"""Write polygons as GeoJSON, feature by feature."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..files.atomic import replacing

__all__ = ["write_polygons"]


def write_polygons(
    path: str | Path,
    features: Iterable[tuple[Sequence[np.ndarray], Mapping[str, Any]]],
    about: Mapping[str, Any] | None = None,
) -> None:
    """Write a FeatureCollection of Polygons (RFC 7946) in one move, as QuPath 0.4 and later imports it.

    Args:
        path: the file.
        features: rings, each (N, 2) as (x, y) with the first point repeated at the end, the outer one before the
            holes; and the feature's `properties`: of these QuPath knows `objectType`, `name`, `measurements`.
        about: what else is known of the collection, kept beside the features under `pixnet`.
    """
    with replacing(path) as temporary, temporary.open("w") as file:
        file.write('{"type": "FeatureCollection",\n"pixnet": ' + json.dumps(dict(about or {})) + ',\n"features": [')
        for number, (rings, properties) in enumerate(features):
            rounded = [np.round(np.asarray(ring, dtype=np.float64), 2).tolist() for ring in rings]
            geometry = {"type": "Polygon", "coordinates": rounded}
            feature = {"type": "Feature", "geometry": geometry, "properties": dict(properties)}
            file.write(("," if number else "") + "\n" + json.dumps(feature))
        file.write("\n]}\n")
