"""Draw the cells of a label image on a region's pixels: each holds the label at its centre."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from .canvas import EPSILON_PX, Canvas, UnitError
from .label_image import LabelImage

__all__ = ["LabelLayer"]


@dataclass(frozen=True)
class LabelLayer:
    """Units as the pixels of a label image that hold one value.

    Attributes:
        centers_um: (U, 2), (x, y) in micrometres from the slide's corner.
        shape: `label`.
        size_um: a typical diameter; not used for drawing.
        areas_um2: (U,), area of each unit.
        reach_um: (U,), largest distance along x or y from a unit's centre to its outline.
        ids: (U,), each unit's value.
        image: the label image.
        pixel_um: (x, y), micrometres per pixel of the label image, whose corner is the slide's.
    """

    centers_um: np.ndarray
    shape: Literal["label"]
    size_um: float
    areas_um2: np.ndarray
    reach_um: np.ndarray
    ids: np.ndarray
    image: LabelImage
    pixel_um: tuple[float, float]

    def check(self, number: int) -> None:
        """Refuse a malformed layer.

        Raises:
            UnitError: if the units' properties are not one each, or a label is named twice.
        """
        n = len(self.centers_um)
        if not len(self.ids) == len(self.areas_um2) == len(self.reach_um) == n:
            raise UnitError(f"Layer {number}: ids, areas_um2 and reach_um need one entry for each of the {n} units.")
        if len(np.unique(self.ids)) < n or (np.asarray(self.ids) == 0).any():
            raise UnitError(f"Layer {number}: each unit needs an id of its own, not 0.")

    def contained(self, canvas: Canvas) -> np.ndarray:
        """Which units surely lie wholly inside the region, by the square of their reach, bool (U,)."""
        reach = np.asarray(self.reach_um)[:, None]
        return canvas.contains(self.centers_um - reach, self.centers_um + reach)

    def cover(self, canvas: Canvas) -> tuple[np.ndarray, np.ndarray]:
        """The pixels of each unit by itself: places in the flat drawing, and whose they are.

        A unit that no pixel centre falls on has the pixel of its own centre.
        """
        drawn = self._sampled(canvas, canvas.corner_px, canvas.far_px).ravel()
        places = np.flatnonzero(drawn)
        units = drawn[places] - 1
        lost = np.ones(len(self.ids), dtype=bool)
        lost[units] = False
        center = canvas.to_px(self.centers_um)
        lost &= canvas.holds(np.floor(center).astype(np.int64))
        # Some of them may be on pixels elsewhere: a unit's centre need not lie in it.
        reach = np.asarray(self.reach_um)[:, None] / canvas.mpp
        beyond = np.any((center - reach < canvas.corner_px) | (center + reach > canvas.far_px), axis=1) & lost
        if beyond.any():
            low = np.floor((center - reach)[beyond].min(0)).astype(np.int64)
            high = np.ceil((center + reach)[beyond].max(0)).astype(np.int64)
            seen = np.zeros(len(self.ids) + 1, dtype=bool)
            seen[self._sampled(canvas, low, high)] = True
            lost &= ~seen[1:]
        home, alone = canvas.at_home(np.flatnonzero(lost), center)
        return np.concatenate([places, home]), np.concatenate([units, alone])

    def _sampled(self, canvas: Canvas, low_px: np.ndarray, high_px: np.ndarray) -> np.ndarray:
        """Unit + 1 at the centres of the grid's pixels from low to high, 0 for none, int64 (h, w)."""
        columns, rows = (
            np.floor((np.arange(low, high) + 0.5 + offset) * canvas.mpp / um + EPSILON_PX).astype(np.int64)
            for low, high, offset, um in zip(low_px, high_px, canvas.fraction_px, self.pixel_um, strict=True)
        )
        label = self.image.sample(columns, rows)
        ids = np.asarray(self.ids).astype(np.uint64)
        order = np.argsort(ids, kind="stable")
        known = ids[order]
        held = np.flatnonzero(label) if len(ids) else np.zeros(0, np.int64)
        value = label.ravel()[held]
        place = np.minimum(np.searchsorted(known, value), len(known) - 1)
        found = known[place] == value
        drawn = np.zeros(label.size, dtype=np.int64)
        drawn[held[found]] = order[place[found]] + 1
        return drawn.reshape(label.shape)
