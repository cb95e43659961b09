"""Several processes and resuming: how far weights and scores are from those that they should equal.

`python -m benchmarks.processes [--work DIR]` trains the default network on generated slides, on the CPU, with one
process and with two (gloo, `configs/multi_gpu_*.json`). Each process has one thread, since sums in another order differ
in their last digit. A run that is stopped after its first epoch and started again must end like one that was not.
Another seed shows that differences are noticed. `tests/test_ranks.py` and `tests/test_workflow.py` assert the same with
the functions below.
"""

from __future__ import annotations

import json
import math
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from bundle.config.root import bundle_root
from bundle.datasets.phantom import make_phantom
from bundle.files.atomic import write_json

from .workload import arguments, finish, row, workspace

__all__ = [
    "evaluate",
    "every_slide_as_test",
    "interrupt",
    "largest_difference",
    "main",
    "monai_command",
    "run_monai",
    "trained_weights",
    "training",
]

# On the CPU: a GPU adds in another order each time.
_ENV = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore", "CUDA_VISIBLE_DEVICES": ""}
#: After a run by several processes, each writes what it holds.
_DUMP = {
    "finalize": [
        "$torch.save(@network_def.state_dict(), @output_dir + '/rank' + os.environ['RANK'] + '.pt')",
        "$torch.distributed.destroy_process_group()",
    ]
}


def monai_command(run_id: str, files: Sequence[str | Path], options: Mapping[str, Any], ranks: int = 1) -> list[str]:
    """`python -m monai.bundle run`, by so many processes."""
    command = [sys.executable, "-m"]
    if ranks > 1:
        command += ["torch.distributed.run", "--standalone", f"--nproc_per_node={ranks}", "-m"]
    command += ["monai.bundle", "run", run_id, "--config_file", str([str(file) for file in files])]
    return command + [str(part) for key, value in options.items() for part in (f"--{key}", value)]


def run_monai(command: Sequence[str], cwd: Path | None = None) -> None:
    """Run such a command.

    Raises:
        RuntimeError: if it fails, with the end of its output.
    """
    done = subprocess.run(command, cwd=cwd, env={**os.environ, **_ENV}, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(done.stdout[-2000:] + done.stderr[-3000:])


def interrupt(command: Sequence[str], until: Path, how: signal.Signals = signal.SIGKILL) -> None:
    """Start a command and stop it as soon as a file is there; `torchrun` needs SIGTERM to stop its processes with it.

    Raises:
        RuntimeError: if it ended before.
    """
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    process = subprocess.Popen(command, env={**os.environ, **_ENV}, **quiet)  # type: ignore[call-overload]
    while process.poll() is None and not until.is_file():
        time.sleep(0.02)
    ended = process.poll() is not None
    process.send_signal(how)
    if process.wait() == 0 or ended:
        raise RuntimeError(f"The run ended (status {process.returncode}) before it could be stopped.")


def training(dataset: Path, run: Path, settings: Mapping[str, Any], ranks: int = 1) -> list[str]:
    """The command that trains into a run folder; several processes leave `rank0.pt`, `rank1.pt`, ... beside it."""
    configs = bundle_root() / "configs"
    files = [configs / "train.json", *([configs / "multi_gpu_train.json"] if ranks > 1 else [])]
    override = run / "override.json"
    write_json(override, {**settings, **(_DUMP if ranks > 1 else {})})
    return monai_command("training", [*files, override], {"dataset_dir": dataset, "output_dir": run}, ranks)


def evaluate(run: Path, dataset: Path, scales_um: Sequence[float], ranks: int = 1) -> dict[str, Any]:
    """Scores of a run on a data set's test slides, by so many processes."""
    configs, name = bundle_root() / "configs", f"by_{ranks}"
    files = [configs / "evaluate.json", run / "configs" / "model.json"]
    files += [configs / "multi_gpu_evaluate.json"] if ranks > 1 else []
    options = {"dataset_dir": dataset, "output_dir": run, "scales_um": list(scales_um), "name": name}
    run_monai(monai_command("evaluating", files, options, ranks))
    found = json.loads((run / "evaluation" / f"{name}.json").read_text())
    return {key: found[key] for key in ("scales", "per_slide")}


def every_slide_as_test(dataset: Path, folder: Path) -> Path:
    """A data set whose test slides are all of another's."""
    content = json.loads((dataset / "dataset.json").read_text())
    slides = [record for split in ("training", "validation", "test") for record in content[split]]
    for record in slides:
        record["image"] = str(dataset / record["image"])
        record["label"] = [str(dataset / label) for label in record["label"]]
    write_json(folder / "dataset.json", {"test": slides})
    return folder


def trained_weights(path: Path) -> dict[str, torch.Tensor]:
    """The learned tensors of a file of weights, without batch statistics, of which each process has its own."""
    state = torch.load(path, map_location="cpu", weights_only=True)
    return {key: value for key, value in state.items() if "running_" not in key and "num_batches" not in key}


def largest_difference(a: Any, b: Any) -> float:
    """Between the numbers of two structures of tensors, or of JSON; infinite where anything else differs."""
    if torch.is_tensor(a) and torch.is_tensor(b):
        if a.shape != b.shape:
            return math.inf
        return _absolute(float((a.double() - b.double()).abs().max())) if a.numel() else 0.0
    if isinstance(a, dict) and isinstance(b, dict):
        return max((largest_difference(a[k], b[k]) for k in a), default=0.0) if a.keys() == b.keys() else math.inf
    if isinstance(a, (list, tuple)) and isinstance(b, (list, tuple)):
        pairs = zip(a, b, strict=False)
        return max((largest_difference(x, y) for x, y in pairs), default=0.0) if len(a) == len(b) else math.inf
    if isinstance(a, (int, float)) and isinstance(b, (int, float)):
        return 0.0 if a == b else _absolute(a - b)
    return 0.0 if a == b else math.inf


def _absolute(difference: float) -> float:
    return abs(difference) if math.isfinite(difference) else math.inf


def _checkpoint(run: Path) -> dict[str, Any]:
    state = torch.load(run / "checkpoints" / "last.pt", map_location="cpu", weights_only=True)
    return {name: state[name] for name in ("network", "optimizer", "ema", "best_model")}


def main(argv: Sequence[str] | None = None) -> dict[str, float]:
    """Run it."""
    parser = arguments(__doc__, threads=False)
    args = parser.parse_args(argv)
    slides, crops, epochs = (3, 2, 2) if args.quick else (5, 4, 3)
    settings = {"crops_per_slide": crops, "crop_px": 256, "max_epochs": epochs, "val_interval": 1, "min_total": 20}
    with workspace(args.work) as work:
        data = work / f"processes_{slides}"
        if not (data / "dataset.json").is_file():
            make_phantom(data, slides=slides, size_um=600.0, mpp=1.0, genes=30, units="spot:55:60,bin:16", truth="none")
        print(f"{slides} generated slides of 600 µm, {slides - 2} to train on; default network, {epochs} epochs")
        folder = work / f"runs_{time.time_ns()}"  # a run of an earlier call would be gone on with
        stop = {1: signal.SIGKILL, 2: signal.SIGTERM}
        runs = {}
        for ranks, names in ((1, ("whole", "again", "seed", "stopped")), (2, ("whole", "again", "stopped"))):
            for name in names:
                run = runs[ranks, name] = folder / f"{name}_{ranks}"
                command = training(data, run, settings | ({"seed": 1} if name == "seed" else {}), ranks)
                if name == "stopped":
                    interrupt(command, run / "checkpoints" / "last.pt", stop[ranks])
                run_monai(command)

        def between(ranks: int, name: str) -> float:
            return largest_difference(*(_checkpoint(runs[ranks, n]) for n in ("whole", name)))

        def ranks_of(name: str) -> float:
            return largest_difference(*(trained_weights(runs[2, name] / f"rank{r}.pt") for r in (0, 1)))

        tests = every_slide_as_test(data, folder / "tests")
        scores = [evaluate(runs[1, "whole"], tests, [120.0], ranks) for ranks in (1, 2)]
        result = {
            "evaluation_two_over_one": largest_difference(*scores),
            "training_rank0_over_rank1": ranks_of("whole"),
            "resumed_rank0_over_rank1": ranks_of("stopped"),
            "rerun": between(1, "again"),
            "rerun_two": between(2, "again"),
            "resumed": between(1, "stopped"),
            "resumed_two": between(2, "stopped"),
            "another_seed": between(1, "seed"),
        }
    labels = {
        "evaluation_two_over_one": f"scores of {slides} slides, two processes and one",
        "training_rank0_over_rank1": "weights of the two processes after training",
        "resumed_rank0_over_rank1": "the same, stopped and resumed",
        "rerun": "one process, run again",
        "rerun_two": "two processes, run again",
        "resumed": "one process, killed and resumed",
        "resumed_two": "two processes, stopped and resumed",
        "another_seed": "one process, another seed (must differ)",
    }
    row("", "largest difference", widths=(46, 20))
    for key, value in result.items():
        row(labels[key], f"{value:.1e}" if value else "0", widths=(46, 20))
    finish(result)
    return result


if __name__ == "__main__":
    main()
