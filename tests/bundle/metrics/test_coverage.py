from __future__ import annotations

import numpy as np
import pytest

from bundle.metrics import coverage_95


def test_a_right_standard_error_covers_95_percent_and_half_of_it_fewer() -> None:
    rng = np.random.default_rng(0)
    spread = rng.uniform(0.1, 3, (20_000, 3))
    error = rng.normal(0, spread)
    assert coverage_95(error, spread) == pytest.approx(np.full(3, 0.95), abs=0.01)
    assert coverage_95(-error, spread / 2) == pytest.approx(np.full(3, 0.673), abs=0.015)
