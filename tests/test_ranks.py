"""Two processes (gloo): evaluation equals one process's, training ends with the same weights on both and resumes.

`python -m benchmarks.processes` prints the differences for the default network.
"""

from __future__ import annotations

import json
import signal
from pathlib import Path

import pytest

from benchmarks.processes import (
    evaluate,
    every_slide_as_test,
    interrupt,
    largest_difference,
    run_monai,
    trained_weights,
    training,
)
from bundle import workflows
from tests import forking


@pytest.fixture(scope="module")
def command(phantom, tiny):
    settings = {**tiny, "crops_per_slide": 4, "max_epochs": 2, "val_interval": 2}
    return lambda run: training(phantom, run, settings, ranks=2)


@pytest.fixture(scope="module")
def run(command, tmp_path_factory) -> Path:
    """A run trained by two processes that `torchrun` starts."""
    folder = tmp_path_factory.mktemp("ranks")
    run_monai(command(folder))
    return folder


def test_both_ranks_end_with_the_same_finite_weights(run):
    first, second = (trained_weights(run / f"rank{rank}.pt") for rank in (0, 1))
    assert first
    assert largest_difference(first, second) == 0  # infinite, were one not finite
    assert (run / "models" / "model.pt").is_file()
    assert (run / "checkpoints" / "last.pt").is_file()


@pytest.fixture
def forked(monkeypatch) -> None:
    """From here on, without waiting for `torchrun` and for imports."""
    monkeypatch.setattr("benchmarks.processes.subprocess", forking)


def test_two_ranks_that_were_stopped_resume_to_the_same_weights(run, forked, command, tmp_path):
    interrupt(command(tmp_path), tmp_path / "checkpoints" / "last.pt", signal.SIGTERM)
    assert not (tmp_path / "rank0.pt").exists()
    run_monai(command(tmp_path))
    for rank in (0, 1):
        whole, resumed = (trained_weights(folder / f"rank{rank}.pt") for folder in (run, tmp_path))
        assert largest_difference(whole, resumed) == 0
    assert (tmp_path / "metrics.csv").read_text() == (run / "metrics.csv").read_text()


def test_two_ranks_evaluate_like_one(run, forked, phantom, tmp_path):
    slides = every_slide_as_test(phantom, tmp_path)  # three slides on two ranks: one rank has fewer
    here = json.loads(workflows.evaluate(run, slides, scales_um=[120.0], settings={"name": "here"}).read_text())
    two = evaluate(run, slides, [120.0], ranks=2)
    one = {key: here[key] for key in two}
    assert len(one["per_slide"]) == 3
    assert largest_difference(one, two) <= 1e-6
