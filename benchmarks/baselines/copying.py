"""A baseline without any image: aligns other sections with this one by the outline of their units and copies them."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

import numpy as np
from scipy.optimize import minimize
from scipy.spatial import cKDTree

from .slides import Slide

__all__ = ["ALIGNMENTS", "Copying", "align", "copy_sections"]

#: How one outline may move onto another: centroids and spreads alone, or with a turn and a shift. (Stretching the axes
#: too was never chosen on Her2ST.)
ALIGNMENTS = ("shift", "rigid")
_STARTS_DEG = range(-30, 31, 15)  # neighbouring sections lie alike; a round outline would fit at any turn


class Copying(NamedTuple):
    """How to copy.

    Attributes:
        alignment: one of `ALIGNMENTS`.
        width: standard deviation of the Gaussian, as a share of the section's spread.
    """

    alignment: str
    width: float


def copy_sections(sections: Sequence[Slide], how: Copying, slide: Slide) -> np.ndarray:
    """Expression of the slide's units from that of other sections around the same place, (U, G)."""
    weighted, weights = np.zeros((len(slide.y), sections[0].y.shape[1])), np.zeros((len(slide.y), 1))
    for section in sections:
        at = _aligned(section.place.tobytes(), slide.place.tobytes(), how.alignment)
        distance2 = ((slide.place[:, None] - at[None]) ** 2).sum(-1)
        # Relative to the nearest, so that a unit far from all others still has weights.
        weight = np.exp(-(distance2 - distance2.min(1, keepdims=True)) / (2 * how.width**2))
        # A section that ends before this place says less than one that reaches it.
        weight *= np.exp(-distance2.min(1, keepdims=True) / (2 * max(how.width, 0.2) ** 2)) + 1e-6
        weighted += weight @ section.y
        weights += weight.sum(1, keepdims=True)
    return weighted / weights


def align(source: np.ndarray, target: np.ndarray, alignment: str) -> np.ndarray:
    """The source's places moved so that the two outlines lie on each other, (U, 2).

    Minimises the mean squared distance of every unit of one to the nearest of the other, both ways.

    Args:
        source: places of one section's units, centred, (U, 2).
        target: those of another, (V, 2).
        alignment: one of `ALIGNMENTS`.
    """
    if alignment == "shift":
        return source
    tree = cKDTree(target)

    def moved(parameters: np.ndarray) -> np.ndarray:
        angle, x, y = parameters
        turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
        return source @ turn.T + (x, y)

    def distance(parameters: np.ndarray) -> float:
        at = moved(parameters)
        there, back = tree.query(at)[0], cKDTree(at).query(target)[0]
        return float((there**2).mean() + (back**2).mean())

    starts = [np.array([np.radians(degrees), 0.0, 0.0]) for degrees in _STARTS_DEG]
    fits = [minimize(distance, start, method="Nelder-Mead", options={"maxiter": 400}) for start in starts]
    return moved(min(fits, key=lambda fit: fit.fun).x)


@lru_cache(maxsize=256)
def _aligned(source: bytes, target: bytes, alignment: str) -> np.ndarray:
    """`align`, once for each pair of sections."""
    here, there = (np.frombuffer(place).reshape(-1, 2) for place in (source, target))
    return align(here, there, alignment)
