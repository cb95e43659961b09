"""Commands that are stopped, or that meet another one at the same output."""

from __future__ import annotations

import importlib
import os
import re
import signal
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from threading import Event
from typing import Any

import anndata as ad
import numpy as np
import pytest

from bundle import config, workflows
from bundle.cli.main import main
from bundle.errors import InputError
from bundle.files.lock import output_lock

ROOT = Path(__file__).parents[3]
compute_map = importlib.import_module("bundle.inference.compute_map")  # beside the function of its name


def test_a_terminated_command_leaves_what_it_goes_on_with_and_nothing_else(
    tiny_run, phantom, tmp_path, monkeypatch, capsys
):
    out, whole, keep, kept = tmp_path / "o.h5ad", tmp_path / "whole.h5ad", compute_map._keep, []

    def keep_three(*arguments: Any) -> None:
        keep(*arguments)
        kept.append(arguments)
        if len(kept) == 3:
            os.kill(os.getpid(), signal.SIGTERM)

    def predict(to: Path) -> int:
        asked = ("predict", phantom / "slides" / "P3.tif", to, "--model", tiny_run, "--bin-um", 50)
        return main([*map(str, asked), "--set", "tile_px=32", "--set", "mpp=1"])

    monkeypatch.setattr(compute_map, "_keep", keep_three)
    assert predict(out) == 143
    said = capsys.readouterr()
    assert "Stopped. The same command goes on" in said.err
    assert "Traceback" not in said.out + said.err
    assert [p.name for p in tmp_path.iterdir()] == ["o.h5ad.work"]
    assert predict(out) == 0
    done, tiles = re.search(r"P3: (\d+) of (\d+) tiles were done already", capsys.readouterr().out).groups()
    assert 3 <= int(done) < int(tiles) == len(kept)  # none was done twice
    assert predict(whole) == 0
    assert {p.name for p in tmp_path.iterdir()} == {"o.h5ad", "whole.h5ad"}
    np.testing.assert_array_equal(ad.read_h5ad(out).X, ad.read_h5ad(whole).X)


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
        with output_lock(path):
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
    with another_command_at(run / "run"), pytest.raises(InputError, match=r"run is in use"):
        workflows.train(phantom, run, settings=tiny)
    settings = {**tiny, "dataset_dir": str(phantom), "output_dir": str(run)}
    with another_command_at(run / "run"), pytest.raises(InputError, match=r"run is in use"):
        config.run_config("training", [ROOT / "configs" / "train.json"], settings)  # as `monai.bundle run` does
    assert not (run / "models").exists()
    with (
        another_command_at(tiny_run / "evaluation" / "test.json"),
        pytest.raises(InputError, match=r"test\.json is in use"),
    ):
        workflows.evaluate(tiny_run)
    assert not (tiny_run / "evaluation" / "test.json").exists()
