from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from benchmarks.baselines import Slide
from benchmarks.baselines.copying import ALIGNMENTS, Copying, align, copy_sections


def outline(rng: np.random.Generator, n: int = 150) -> np.ndarray:
    """Places of a section that is no disk: a bar with a bulge at one end."""
    places = np.concatenate([rng.uniform((-2, -0.4), (2, 0.4), (n, 2)), rng.normal((1.4, 0.7), 0.2, (n // 3, 2))])
    return places - places.mean(0)


def test_a_turned_and_shifted_outline_is_laid_back() -> None:
    places = outline(np.random.default_rng(0))
    angle = np.radians(20)
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    back = align(places @ turn.T + 0.1, places, "rigid")
    assert np.abs(back - places).max() < 0.05


@pytest.mark.parametrize("alignment", ALIGNMENTS)
def test_a_narrow_copy_is_the_section_and_a_wide_one_its_mean(alignment: str) -> None:
    rng = np.random.default_rng(0)
    places, total = rng.uniform(0, 9e3, (40, 2)), np.full(40, 1e3)
    slide = Slide("s", Path("none"), 1.0, 55.0, places, total, rng.random((40, 5)))
    np.testing.assert_allclose(copy_sections([slide], Copying(alignment, 1e-3), slide), slide.y, atol=1e-3)
    wide = copy_sections([slide], Copying(alignment, 1e4), slide)
    np.testing.assert_allclose(wide, np.tile(slide.y.mean(0), (len(slide.y), 1)), atol=1e-6)
