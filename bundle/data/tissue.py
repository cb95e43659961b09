"""Where a slide has tissue, how much of it a unit holds, and how strongly it is stained."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from .opening import OpenSlide, SlideOpener

__all__ = [
    "STAIN_FOREIGN",
    "STAIN_LIMIT",
    "STAIN_OWN",
    "TissueMap",
    "stain_distance",
    "stain_of_slides",
    "tissue_fraction",
]

_TISSUE_MAX_PX = 2048
_STAIN_PX = 100_000  # pixels that a stain's mean is taken over
_HUE = 1.5  # a radian of hue counts as much as this factor e of density
#: `stain_distance` of 99 % of restained slides from the others of their laboratory, by `python -m benchmarks.stain`.
STAIN_OWN = 0.3
#: Of 95 % of restained H&E slides from those of another of five laboratories.
STAIN_FOREIGN = 0.93
#: A slide beyond this is called unlike H&E: 1 % of H&E of other laboratories is, and all fluorescence.
STAIN_LIMIT = 1.0


class TissueMap:
    """Where a slide has tissue, from a small `picture` of it; `stain` is its mean optical density (R, G, B).

    Args:
        slide: an open slide.
        mask: from a picture, uint8 (3, h, w), and its mpp to bool (1, h, w) (`transforms.TissueMask` is one).
    """

    def __init__(self, slide: OpenSlide, mask: Callable[[np.ndarray, float], Any]) -> None:
        self.picture, self.mpp = slide.thumbnail(_TISSUE_MAX_PX)
        picture = self.picture
        self.mask = np.asarray(mask(np.ascontiguousarray(picture.transpose(2, 0, 1)), self.mpp))[0].astype(bool)

        glass = np.percentile(picture[::4, ::4].reshape(-1, 3), 95, axis=0)
        pixels = picture[self.mask]
        pixels = pixels[:: max(len(pixels) // _STAIN_PX, 1)]
        density = -np.log10((pixels + 1.0) / (np.maximum(glass, 128) + 1.0))
        self.stain = np.maximum(density.mean(0), 0) if self.mask.any() else np.zeros(3)

    @property
    def bounds_um(self) -> tuple[np.ndarray, np.ndarray] | None:
        """The tissue's rectangle, (low, high) as (x, y); None on blank glass."""
        rows, columns = np.nonzero(self.mask)
        if len(rows) == 0:
            return None
        low = np.array([columns.min(), rows.min()]) * self.mpp
        return low, np.array([columns.max() + 1, rows.max() + 1]) * self.mpp

    def at(self, points_um: np.ndarray) -> np.ndarray:
        """Whether points (x, y) lie on tissue, bool (N,)."""
        column, row = np.floor(points_um / self.mpp).astype(int).T
        inside = (row >= 0) & (column >= 0) & (row < self.mask.shape[0]) & (column < self.mask.shape[1])
        found = np.zeros(len(points_um), bool)
        found[inside] = self.mask[row[inside], column[inside]]
        return found


def tissue_fraction(tissue: TissueMap, centers_um: np.ndarray, shape: str, size_um: float) -> np.ndarray:
    """Share of each unit's area that is tissue, (U,); sampled at up to 7 x 7 points, of cells in a disk."""
    n = int(np.clip(np.ceil(size_um / tissue.mpp), 1, 7))
    steps = ((np.arange(n) + 0.5) / n - 0.5) * size_um
    dx, dy = (grid.ravel() for grid in np.meshgrid(steps, steps))
    keep = dx**2 + dy**2 <= (size_um / 2) ** 2 if shape != "square" else np.ones(len(dx), bool)
    hits = np.zeros(len(centers_um))
    for x, y in zip(dx[keep], dy[keep], strict=True):
        hits += tissue.at(centers_um + np.array([x, y]))
    return hits / keep.sum()


def stain_of_slides(
    records: Sequence[Mapping[str, Any]], reader: SlideOpener, tissue: Callable[[np.ndarray, float], Any]
) -> list[list[float]]:
    """Mean optical density (R, G, B) of each slide's tissue, to tell later whether another slide is unlike them."""
    maps = (TissueMap(reader.open(r["image"], r.get("mpp")), tissue) for r in records)
    return [[float(v) for v in m.stain] for m in maps]


def stain_distance(stain: np.ndarray, training: Sequence[Sequence[float] | np.ndarray]) -> float:
    """How far a slide's stain lies from the nearest training slide's; NaN where either is unknown.

    The length of two parts: the logarithm of the ratio of both optical densities (0.69 is a slide twice as dark), and
    1.5 times the angle between their hues in radians (0.39 is 15 degrees).

    Args:
        stain: mean optical density of its tissue (R, G, B); 0 where no tissue was found.
        training: those of the training slides.
    """
    known = np.asarray(training, dtype=float).reshape(-1, 3)
    known = known[np.linalg.norm(known, axis=1) > 0]
    own = np.asarray(stain, dtype=float)
    if not len(known) or not np.linalg.norm(own) > 0:
        return float("nan")
    strength, others = np.linalg.norm(own), np.linalg.norm(known, axis=1)
    angle = np.arccos(np.clip(known @ own / (others * strength), -1, 1))
    return float(np.hypot(np.log(strength / others), _HUE * angle).min())
