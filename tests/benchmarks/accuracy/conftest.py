from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from benchmarks.accuracy import worker

TINY = {
    "why": "small enough to train in a second",
    "set": {
        "mpp": 2.0,
        "crop_px": 128,
        "crops_per_slide": 2,
        "network_def#encoder": {
            "_target_": "networks.SwinEncoder",
            "embed_dim": 12,
            "depths": [2, 2],
            "num_heads": [1, 2],
            "window_size": 4,
        },
        "network_def#decoder_channels": [8, 8],
        "network_def#ridge#encoder#n_patches": 8,
    },
}


@pytest.fixture
def in_this_process(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Trainings do not wait for a process of their own, whose start takes longer than they do."""
    threads = torch.get_num_threads()  # a training sets its own

    class Done:
        def __init__(self, command: list[str], **_: Any) -> None:
            self.returncode = worker.main(command[-1])

        def poll(self) -> int:
            return self.returncode

    monkeypatch.setattr("benchmarks.accuracy.schedule.subprocess", SimpleNamespace(Popen=Done, STDOUT=None))
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="session")
def table_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A table of one recipe."""
    path = tmp_path_factory.mktemp("table") / "recipes.json"
    table: dict[str, Any] = {"min_total": 200, "reference": "tiny"}
    path.write_text(json.dumps({**table, "recipes": {"tiny": TINY}}))
    return path


@pytest.fixture(scope="session")
def spots(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three generated slides, a patient each, with some twenty spots of 100 µm."""
    from bundle.datasets.phantom import make_phantom

    folder = tmp_path_factory.mktemp("spots")
    return make_phantom(folder, slides=3, size_um=600.0, mpp=1.0, genes=30, units="spot:100:120", truth="none")
