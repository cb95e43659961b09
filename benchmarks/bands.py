"""What computing the map band by band buys: time and peak memory of the default network with and without bands.

`python -m benchmarks.bands`: one tile of 2048 x 2048 px at the model's resolution. `networks/banded.py` holds the
bands; each row turns them off in one part of the network. Times are ratios within one process, taken in turns.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from monai.bundle import ConfigParser

from bundle.config.merge import merge_config
from bundle.config.root import bundle_root
from bundle.speed.memory import keep_freed_memory
from networks import banded, safb
from networks.encoders import kmeans_patches

from .workload import arguments, row

__all__ = ["main"]

#: Modules that ask whether bands pay.
_PARTS = {"Swin": banded, "SAFB": safb, "k-means patches": kmeans_patches}
_ROUNDS = 5


@contextmanager
def _without(parts: Sequence[str]) -> Iterator[None]:
    with ExitStack() as stack:
        for part in parts:
            stack.enter_context(mock.patch.object(_PARTS[part], "pays", return_value=False))
        yield


def _network() -> Any:
    network = ConfigParser(merge_config([bundle_root() / "configs" / "train.json"], {"n_genes": 250}))
    return network.get_parsed_content("network_def").eval()


def _seconds(network: Any, image: torch.Tensor, parts: Sequence[str]) -> float:
    with _without(parts), torch.inference_mode():
        started = time.perf_counter()
        network.features(image)
        return time.perf_counter() - started


def _peak_mb(side_px: int, parts: Sequence[str]) -> float:
    """What one pass adds to the memory of a process of its own."""
    command = [sys.executable, "-m", "benchmarks.bands", "--side-px", str(side_px), "--peak", ",".join(parts)]
    return float(subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()[-1])


def _peak_kb() -> int:
    """This process's peak memory; Linux."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM"))


def main(argv: Sequence[str] | None = None) -> None:
    """Run it."""
    parser = arguments(__doc__)
    parser.add_argument("--side-px", type=int, default=2048)
    parser.add_argument("--peak", help="print the peak memory of one pass without bands in these parts")
    args = parser.parse_args(argv)
    torch.set_num_threads(args.threads)
    keep_freed_memory()
    network, image = _network(), torch.randn(1, 3, *[512 if args.quick else args.side_px] * 2)
    if args.peak is not None:
        Path("/proc/self/clear_refs").write_text("5")  # the peak so far is forgotten, the parent's with it
        before = _peak_kb()
        _seconds(network, image, [part for part in args.peak.split(",") if part])
        print((_peak_kb() - before) / 1024)
        return
    variants: dict[str, list[str]] = {"all bands": [], **{f"no bands in {part}": [part] for part in _PARTS}}
    variants["no bands"] = list(_PARTS)
    _seconds(network, image, [])
    rounds = [{name: _seconds(network, image, parts) for name, parts in variants.items()} for _ in range(_ROUNDS)]
    row("", "time", "peak MB")
    for name, parts in variants.items():
        ratio = statistics.median(times[name] / times["all bands"] for times in rounds)
        row(name, f"{ratio:.2f}", f"{_peak_mb(image.shape[-1], parts):.0f}")


if __name__ == "__main__":
    main()
