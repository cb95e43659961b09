"""Mask layers for units that overlap: on each layer, no two units share a pixel."""

from __future__ import annotations

import numpy as np

from .canvas import UnitError

__all__ = ["MOST_LAYERS", "split_overlapping"]

#: More units than this over one pixel are no arrangement of spots, bins or cells.
MOST_LAYERS = 64


def split_overlapping(pixel: np.ndarray, unit: np.ndarray, n_units: int) -> np.ndarray:
    """The mask layer of each unit, int64 (n_units,): all 0 where no two share a pixel.

    Jones & Plassmann, "A parallel graph coloring heuristic", 1993: of the units that share pixels, those of the highest
    rank among their neighbours take the first layer that no neighbour is on, until all have one.

    Args:
        pixel: pixels that units cover, (N,).
        unit: which unit covers each, (N,).
        n_units: number of units.

    Raises:
        UnitError: if more than 64 units cover one pixel.
    """
    layer = np.zeros(n_units, dtype=np.int64)
    owner = np.full(int(pixel.max(initial=-1)) + 1, -1)
    owner[pixel] = unit
    beaten = owner[pixel] != unit
    if not beaten.any():
        return layer
    contested = np.zeros(len(owner), dtype=bool)
    contested[pixel[beaten]] = True
    first, second = _sharing(pixel[contested[pixel]], unit[contested[pixel]])
    rank = np.random.default_rng(0).permutation(n_units)
    layer[np.concatenate([first, second])] = -1
    while (waiting := layer < 0).any():
        highest = np.full(n_units, -1)
        both = waiting[first] & waiting[second]
        np.maximum.at(highest, first[both], rank[second[both]])
        chosen = waiting & (rank > highest)
        number = 0
        while chosen.any():
            taken = np.zeros(n_units, dtype=bool)
            taken[first[layer[second] == number]] = True
            layer[chosen & ~taken] = number
            chosen &= taken
            number += 1
    return layer


def _sharing(pixel: np.ndarray, unit: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Pairs of units that share a pixel, both ways round and each once."""
    order = np.argsort(pixel, kind="stable")
    pixel, unit = pixel[order], unit[order]
    pairs = []
    step = 1
    while (same := pixel[step:] == pixel[:-step]).any():
        if step == MOST_LAYERS:
            raise UnitError(
                f"More than {MOST_LAYERS} units cover one place. Check their positions and their size, and whether "
                "they are listed more than once."
            )
        pairs.append(np.column_stack([unit[:-step][same], unit[step:][same]]))
        step += 1
    found = np.unique(np.concatenate(pairs), axis=0)
    found = np.unique(np.concatenate([found, found[:, ::-1]]), axis=0)
    return found[:, 0], found[:, 1]
