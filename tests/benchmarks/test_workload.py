from __future__ import annotations

import sys

import numpy as np
import pytest

from benchmarks.workload import measured


def test_a_commands_peak_is_its_own_and_not_that_of_who_measures_it():
    held = np.ones(2**25)  # 256 MB
    allocate = "import sys; held = b'1' * (int(sys.argv[1]) << 20); print('made')"
    small, large = (measured([sys.executable, "-c", allocate, str(mb)]) for mb in (1, 100))
    assert small.rss_mb < held.nbytes / 2**21
    assert large.rss_mb - small.rss_mb == pytest.approx(99, abs=5)
    assert large.log.strip() == "made"


def test_a_command_that_fails_is_reported_with_its_output():
    with pytest.raises(RuntimeError, match="no such thing"):
        measured([sys.executable, "-c", "raise SystemExit('no such thing')"])
