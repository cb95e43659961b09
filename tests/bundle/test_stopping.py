"""Commands that are stopped, or that meet another one at the same output."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from threading import Event

import pytest

from bundle import commands
from bundle.cli import main
from bundle.errors import InputError
from bundle.files import alone_at
from tests import forking

ROOT = Path(__file__).parents[2]


def test_a_terminated_command_leaves_what_it_goes_on_with_and_nothing_else(tiny_run, phantom, tmp_path):
    out, log = tmp_path / "o.h5ad", tmp_path / "log"
    asked = ["predict", phantom / "slides" / "P3.tif", out, "--model", tiny_run, "--bin-um", "2"]
    process = forking.Popen(
        [sys.executable, "-m", "bundle.cli", *map(str, asked)], cwd=ROOT, stderr=log, stdout=tmp_path / "said"
    )
    deadline = time.monotonic() + 120
    while not (tmp_path / "o.h5ad.work").is_dir():
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.01)
    process.send_signal(signal.SIGTERM)
    assert process.wait() == 143
    assert "Stopped. The same command goes on" in log.read_text()
    assert "Traceback" not in log.read_text()
    left = {p.name for p in tmp_path.iterdir()} - {"log", "said"}
    assert left <= {"o.h5ad.work"}


def test_the_programs_own_handling_of_sigterm_stays(tmp_path, monkeypatch):
    def own(number: int, frame: object) -> None:
        raise AssertionError

    before = signal.signal(signal.SIGTERM, own)
    try:
        main(["report", str(tmp_path / "none")])
        assert signal.getsignal(signal.SIGTERM) is own
    finally:
        signal.signal(signal.SIGTERM, before)


@pytest.mark.parametrize(("number", "status"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_both_signals_end_a_command_alike(tmp_path, monkeypatch, capsys, number, status):
    def work(*_: object) -> None:
        os.kill(os.getpid(), number)
        time.sleep(5)

    monkeypatch.setattr("bundle.report.write_report", work)
    assert main(["report", str(tmp_path)]) == status
    assert "Stopped." in capsys.readouterr().err
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL


@contextmanager
def another_command_at(path: Path) -> Iterator[None]:
    """Hold an output as another command does, in another thread."""
    held, done = Event(), Event()

    def hold() -> None:
        with alone_at(path):
            held.set()
            done.wait(60)

    with ThreadPoolExecutor(1) as pool:
        future = pool.submit(hold)
        assert held.wait(10)
        try:
            yield
        finally:
            done.set()
            future.result()


def test_one_training_and_one_scoring_of_a_name_at_a_time(tiny_run, phantom, tiny, tmp_path):
    run = tmp_path / "run"
    with another_command_at(run / "training"), pytest.raises(InputError, match=r"run is in use"):
        commands.train(phantom, run, settings=tiny)
    settings = {**tiny, "dataset_dir": str(phantom), "output_dir": str(run)}
    with another_command_at(run / "run"), pytest.raises(InputError, match=r"run is in use"):
        commands.run_config("training", [ROOT / "configs" / "train.json"], settings)  # as `monai.bundle run` does
    assert not (run / "models").exists()
    with (
        another_command_at(tiny_run / "evaluation" / "test.json"),
        pytest.raises(InputError, match=r"test\.json is in use"),
    ):
        commands.evaluate(tiny_run)
    assert not (tiny_run / "evaluation" / "test.json").exists()
