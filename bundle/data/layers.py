"""The geometry of units as layers to rasterise."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from .polygons import take_ragged
from .units import Units

__all__ = ["layer_of", "take_layer"]


def layer_of(units: Units, mpp: float) -> dict[str, Any]:
    """The geometry of units as a layer to rasterise.

    All layers hold `centers_um` (U, 2) from the slide's origin, `shape` and `size_um`. Cells add `areas_um2` (U,);
    `polygon` adds `vertices_px` (V, 2), `vertex_mpp`, `ring_offsets` (R + 1,) and `unit_offsets` (U + 1,), `label`
    adds `reach_um` (U,), `ids` (U,), `image` and `pixel_um` (x, y).
    """
    layer = {"centers_um": units.centers_px * mpp, "shape": units.shape, "size_um": units.size_um}
    return layer if units.geometry is None else {**layer, **units.geometry.layer(mpp)}


def take_layer(layer: Mapping[str, Any], index: np.ndarray) -> dict[str, Any]:
    """A layer of `layer_of` with some of its units alone, in the order of `index` (integers or a boolean mask)."""
    taken = dict(layer)
    for key in ("centers_um", "areas_um2", "reach_um", "ids"):
        if key in layer:
            taken[key] = np.asarray(layer[key])[index]
    if "vertices_px" in layer:
        rings, taken["unit_offsets"] = take_ragged(layer["unit_offsets"], index)
        vertices, taken["ring_offsets"] = take_ragged(layer["ring_offsets"], rings)
        taken["vertices_px"] = layer["vertices_px"][vertices]
    return taken
