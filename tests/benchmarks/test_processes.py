from __future__ import annotations

import math
import signal
import sys

import pytest
import torch

from benchmarks.processes import interrupt, largest_difference


@pytest.mark.parametrize(
    ("a", "b", "difference"),
    [
        ({"x": [1.0, {"y": 2.0}], "name": "a"}, {"x": [1.0, {"y": 2.5}], "name": "a"}, 0.5),
        ({"x": None}, {"x": None}, 0.0),
        ({"x": None}, {"x": 1.0}, math.inf),
        ({"x": 1.0}, {"y": 1.0}, math.inf),
        ([1.0], [1.0, 2.0], math.inf),
        ("a", "b", math.inf),
        (math.nan, 1.0, math.inf),
        (torch.tensor([1.0, 2.0]), torch.tensor([1.0, 2.25]), 0.25),
        (torch.tensor([math.nan]), torch.tensor([math.nan]), math.inf),
        (torch.tensor([0.0, math.nan]), torch.tensor([0.0, 1.0]), math.inf),
        (torch.zeros(2), torch.zeros(2, 1), math.inf),
        (torch.zeros(0), torch.zeros(0), 0.0),
        ({"n": torch.tensor(3)}, {"n": torch.tensor(3)}, 0.0),
    ],
)
def test_the_largest_difference_is_found_and_nothing_is_passed_over(a, b, difference: float) -> None:
    assert largest_difference(a, b) == difference
    assert largest_difference(b, a) == difference


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM])
def test_a_command_is_stopped_once_its_file_is_there(tmp_path, how: signal.Signals) -> None:
    script = "import pathlib, time; pathlib.Path('{0}').touch(); time.sleep(60); pathlib.Path('{0}.end').touch()"
    interrupt([sys.executable, "-c", script.format(tmp_path / "there")], tmp_path / "there", how)
    assert [path.name for path in tmp_path.iterdir()] == ["there"]


def test_a_command_that_ended_before_was_not_stopped(tmp_path) -> None:
    with pytest.raises(RuntimeError, match="ended"):
        interrupt([sys.executable, "-c", ""], tmp_path / "never")
