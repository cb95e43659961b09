"""Two processes (gloo): evaluation equals one process's, training ends with the same weights on both."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).parents[1]
ENV = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore"}
#: After the run, each rank writes what it holds.
DUMP = {
    "finalize": [
        "$torch.save(@network_def.state_dict(), @output_dir + '/rank' + os.environ['RANK'] + '.pt')",
        "$torch.distributed.destroy_process_group()",
    ]
}


def _torchrun(run_id: str, files: list[Path], *more: str) -> None:
    command = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--standalone",
        "--nproc_per_node=2",
        "-m",
        "monai.bundle",
    ]
    command += ["run", run_id, "--config_file", str([str(f) for f in files]), *more]
    done = subprocess.run(command, env=ENV, capture_output=True, text=True, timeout=280)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-3000:]


@pytest.fixture(scope="module")
def run(phantom, tiny, tmp_path_factory) -> Path:
    """A run trained by two processes."""
    folder = tmp_path_factory.mktemp("ranks")
    override = folder / "tiny.json"
    override.write_text(json.dumps({**tiny, "crops_per_slide": 4, "max_epochs": 2, "val_interval": 2, **DUMP}))
    configs = ROOT / "configs"
    files = [configs / "train.json", configs / "multi_gpu_train.json", override]
    _torchrun("training", files, "--dataset_dir", str(phantom), "--output_dir", str(folder))
    return folder


def test_both_ranks_end_with_the_same_finite_weights(run):
    first, second = (torch.load(run / f"rank{rank}.pt", weights_only=True) for rank in (0, 1))
    trained = {k: v for k, v in first.items() if "running_" not in k and "num_batches" not in k}
    assert trained
    for key, value in trained.items():  # local batch statistics differ, what is learned does not
        torch.testing.assert_close(value, second[key], rtol=0, atol=0)
        assert torch.isfinite(value.float()).all()
    assert (run / "models" / "model.pt").is_file()
    assert (run / "checkpoints" / "last.pt").is_file()


def test_two_ranks_evaluate_like_one(run, phantom, tmp_path):
    from bundle import commands

    everything = json.loads((phantom / "dataset.json").read_text())
    slides = [r for split in ("training", "validation", "test") for r in everything[split]]
    for record in slides:  # three slides on two ranks: one rank has fewer
        record["image"] = str(phantom / record["image"])
        record["label"] = [str(phantom / label) for label in record["label"]]
    (tmp_path / "dataset.json").write_text(json.dumps({"test": slides}))
    one = json.loads(commands.evaluate(run, tmp_path, scales_um=[120.0]).read_text())
    configs = ROOT / "configs"
    files = [configs / "evaluate.json", run / "configs" / "model.json", configs / "multi_gpu_evaluate.json"]
    options = {"dataset_dir": tmp_path, "output_dir": run, "scales_um": "[120.0]", "name": "two"}
    _torchrun("evaluating", files, *(str(x) for k, v in options.items() for x in (f"--{k}", v)))
    two = json.loads((run / "evaluation" / "two.json").read_text())
    assert len(one["per_slide"]) == 3
    _assert_close(one["scales"], two["scales"])
    _assert_close(one["per_slide"], two["per_slide"])


def _assert_close(a, b) -> None:
    if isinstance(a, dict):
        assert a.keys() == b.keys()
        for key in a:
            _assert_close(a[key], b[key])
    elif isinstance(a, float):
        assert b == pytest.approx(a, abs=1e-6)
    else:
        assert a == b
