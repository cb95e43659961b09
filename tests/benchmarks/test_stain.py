"""The warning of an unlike stain is rare for H&E of other laboratories, and certain for fluorescence."""

from __future__ import annotations

import pytest

from benchmarks.stain import FLUORESCENCE, LABORATORIES, measure
from bundle.data.tissue import STAIN_FOREIGN, STAIN_LIMIT, STAIN_OWN


def test_the_limits_are_what_real_slides_say(real_data):
    paths = [path for lab in LABORATORIES.values() for path in lab] + list(FLUORESCENCE.values())
    if not all((real_data / path).is_file() for path in paths):
        pytest.skip(f"{real_data} lacks slides of some laboratory")
    found = measure(real_data, draws=2)
    assert found["own"]["0.95"] < STAIN_OWN
    assert found["foreign"]["0.95"] == pytest.approx(STAIN_FOREIGN, abs=0.12)
    assert found["false_alarms"] <= 0.05
    assert found["false_alarms_own"] == 0
    for name, distances in found["other"].items():
        if "DAPI" in name:
            assert min(distances) > STAIN_LIMIT
    assert found["found"] > 0.9
