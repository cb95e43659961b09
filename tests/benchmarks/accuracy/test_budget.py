from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from ignite.engine import Engine, Events

from benchmarks.accuracy import budget
from benchmarks.accuracy.budget import TimedSchedule
from bundle.config.merge import merge_config


class Clock:
    """A thread whose time passes by the steps it does."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, step_s: float) -> None:
        self.now, self.step_s = 0.0, step_s
        monkeypatch.setattr(budget.time, "thread_time", lambda: self.now)

    def step(self, *_: object) -> None:
        self.now += self.step_s


def make(report: Path, minutes: float = 1.0) -> TimedSchedule:
    return TimedSchedule(torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.5), minutes, str(report))


@pytest.mark.parametrize("step_s", [0.7, 7.0])
def test_the_schedule_fits_the_budget_at_any_speed(
    step_s: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = Clock(monkeypatch, step_s)
    schedule = make(tmp_path / "budget.json")
    rates: list[float] = []
    trainer = Engine(clock.step)
    schedule.attach(trainer)
    trainer.add_event_handler(
        Events.ITERATION_COMPLETED, lambda _: rates.append(schedule.optimizer.param_groups[0]["lr"])
    )
    trainer.run([0] * 4, max_epochs=1000)
    report = json.loads((tmp_path / "budget.json").read_text())
    assert 60 <= report["cpu_s"] < 60 + step_s
    assert report["steps"] == len(rates)
    assert max(rates) <= 0.5
    peak = rates.index(max(rates))
    assert rates[: peak + 1] == sorted(rates[: peak + 1])
    assert rates[peak:] == sorted(rates[peak:], reverse=True)
    assert schedule.rate(1.0) == pytest.approx(0)
    assert schedule.rate(schedule.warmup) == pytest.approx(1)


def test_what_is_killed_goes_on_with_the_time_that_was_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock(monkeypatch, 1.0)
    first = make(tmp_path / "a.json")
    trainer = Engine(clock.step)
    first.attach(trainer)
    trainer.run([0] * 20, max_epochs=1)
    again = make(tmp_path / "b.json")
    again.load_state_dict(first.state_dict())
    assert again.share() == pytest.approx(1 / 3)
    trainer = Engine(clock.step)
    again.attach(trainer)
    trainer.run([0] * 20, max_epochs=1000)
    assert json.loads((tmp_path / "b.json").read_text())["steps"] == 60


def test_a_timed_training_only_adds_its_schedule():
    root = Path(__file__).parents[3]
    plain, timed = (
        merge_config([root / "configs/train.json", *more], {})
        for more in ([], [root / "benchmarks/accuracy/budget.json"])
    )
    assert timed["train"]["handlers"] == [*plain["train"]["handlers"], "@lr_scheduler"]
    assert {k for k in plain if plain[k] != timed[k]} == {"max_epochs", "lr_scheduler", "train"}


def test_a_budget_of_steps_asks_no_clock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    done = []
    for name, step_s in (("slow", 100.0), ("fast", 0.0)):
        clock = Clock(monkeypatch, step_s)
        optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.5)
        schedule, rates = TimedSchedule(optimizer, 1.0, str(tmp_path / f"{name}.json"), steps=7), []
        trainer = Engine(clock.step)
        schedule.attach(trainer)
        trainer.add_event_handler(
            Events.ITERATION_STARTED, lambda _, r=rates, o=optimizer: r.append(o.param_groups[0]["lr"])
        )
        trainer.run([0] * 4, max_epochs=1000)
        done.append(rates)
    assert len(done[0]) == 7
    assert done[0] == done[1]
