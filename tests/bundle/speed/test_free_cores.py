"""Threads give way to other processes' work, and never to the user's own choice."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from bundle.cli import main as cli
from bundle.speed import threads

CORES = set(range(4))


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[[float, float, float], None]:
    """Four cores of a machine with six; the function lets seconds pass in which processes use them."""
    clock = {"now": 0.0, "own": 0.0, "all": 0.0}
    monkeypatch.setattr(threads.os, "sched_getaffinity", lambda pid: CORES, raising=False)
    monkeypatch.setattr(threads, "monotonic", lambda: clock["now"])
    monkeypatch.setattr(threads, "process_time", lambda: clock["own"])
    monkeypatch.setattr(threads, "sleep", lambda seconds: passing(seconds, 0, 0))
    monkeypatch.setattr(threads, "_STAT", tmp_path / "stat")
    monkeypatch.setattr(threads, "_threads", None)
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS"):
        monkeypatch.delenv(name, raising=False)

    def passing(seconds: float, own: float, others: float) -> None:
        clock["now"] += seconds
        clock["own"] += own * seconds
        clock["all"] += (own + others) * seconds
        each = round(clock["all"] / len(CORES) * os.sysconf("SC_CLK_TCK"))
        lines = [f"cpu{number} {each} 0 0 999 999 0 0 0 0 0" for number in CORES]
        not_ours = [f"cpu{number} {round(clock['now'] * 1000)} 0 0 0 0 0 0 0 0 0" for number in (4, 5)]
        (tmp_path / "stat").write_text("\n".join(["cpu 1 1 1 1 1 1 1 1 0 0", *lines, *not_ours, "intr 5", ""]))

    passing(0, 0, 0)
    return passing


@pytest.mark.parametrize(
    ("own", "others", "free"), [(4, 0, 4), (4, 0.2, 4), (3.3, 0.7, 3), (2, 2, 2), (1, 2.9, 1), (0.5, 3.5, 1)]
)
def test_cores_that_others_use_are_not_free(machine: Callable, own: float, others: float, free: int) -> None:
    cores = threads.FreeCores()
    machine(0.5, own, others)
    assert cores.count() is None  # too early to say
    machine(1.5, own, others)
    assert cores.count() == free


@pytest.mark.usefixtures("four_threads")
def test_threads_follow_the_free_cores(machine: Callable) -> None:
    found = []
    for others in (0, 3, 3, 1, 0):
        machine(2, 4 - others, others)
        threads.use_free_cores()
        found.append(torch.get_num_threads())
    assert found == [4, 1, 1, 3, 4]


@pytest.mark.usefixtures("four_threads")
@pytest.mark.parametrize("by", ["environment", "call"])
def test_the_users_choice_stands(machine: Callable, monkeypatch: pytest.MonkeyPatch, by: str) -> None:
    if by == "environment":
        monkeypatch.setenv("OMP_NUM_THREADS", "4")
    threads.use_free_cores()
    if by == "call":
        torch.set_num_threads(2)
    machine(2, 0, 4)
    threads.use_free_cores()
    assert torch.get_num_threads() == (4 if by == "environment" else 2)


def test_a_system_that_says_nothing_changes_nothing(machine: Callable, tmp_path: Path) -> None:
    (tmp_path / "stat").unlink()
    before = torch.get_num_threads()
    threads.use_free_cores()
    assert torch.get_num_threads() == before


@pytest.mark.parametrize(
    ("given", "spin"), [({}, "3000"), ({"GOMP_SPINCOUNT": "7"}, "7"), ({"OMP_WAIT_POLICY": "active"}, None)]
)
def test_the_command_line_has_threads_wait_briefly(
    monkeypatch: pytest.MonkeyPatch, given: dict[str, str], spin: str | None
) -> None:
    monkeypatch.setattr(os, "environ", dict(given))
    with pytest.raises(SystemExit):
        cli.main(["--version"])
    assert os.environ.get("GOMP_SPINCOUNT") == spin
