"""Time of a step on an idle machine, and on one whose cores other processes use too.

`python -m benchmarks.busy`: a training step of the recipe for few slides, and a tile of the default network's map, each
through the inferer that `pixnet` uses, on all cores. It compares PixNet's own choice of threads (`now`) with torch's
(`before`), one thread, and threads that never spin (`passive`), next to 0, 1 and 2 other busy processes. Every case
runs in a process of its own, the cases of a round in turn, so that a slow minute affects them all. The last line gives
the worse of both workloads: seconds on the idle machine over `before`, and on the busy one over one thread.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from bundle.cli.main import SPIN_COUNT
from bundle.config.root import bundle_root

from .workload import finish, row

__all__ = ["main"]

#: What each case adds to the environment; `now` is what `pixnet` sets before it imports torch.
_CASES: dict[str, dict[str, str]] = {
    "before": {},
    "now": {"GOMP_SPINCOUNT": SPIN_COUNT},
    "one thread": {"OMP_NUM_THREADS": "1"},
    "passive": {"OMP_WAIT_POLICY": "passive"},
}
_WORKLOADS = ("training", "prediction")
_WARM_UP = 2  # steps


def _training() -> Callable[[], Any]:
    """A step of `configs/efficientnet_lite.json`, without the optimizer's: a crop of 384 px with 16 units."""
    import torch

    from bundle.inference import UnitInferer

    network = _network("efficientnet_lite.json").train()
    label = torch.arange(1, 17).view(1, 1, 4, 4).repeat_interleave(96, 2).repeat_interleave(96, 3)
    batch = {"image": torch.randn(1, 3, 384, 384), "label": label.int()}
    inferer = UnitInferer()
    return lambda: inferer(batch, network).log_cp10k.square().mean().backward()


def _prediction() -> Callable[[], Any]:
    """A tile of 1024 px of the default network's map."""
    from bundle.inference.run_tiles import TileSettings, run_tiles

    network = _network().eval()
    settings = TileSettings(lambda pixels: pixels / 255, mpp=2.0, tile_px=512)
    tiles = list(settings.tiles(network, (0, 0), (512, 512)))
    return lambda: [None for _ in run_tiles(_Pixels(), network, tiles, settings)]  # type: ignore[arg-type]


class _Pixels:
    """A slide of one grey."""

    def read_region(self, x_px: int, y_px: int, width_px: int, height_px: int, mpp: float) -> np.ndarray:
        return np.full((height_px, width_px, 3), 200, np.uint8)


def _network(config: str | None = None) -> Any:
    """The network of a configuration with 250 genes, its weights drawn at random."""
    from monai.bundle import ConfigParser

    folder = bundle_root() / "configs"
    files = [folder / "train.json", *([folder / config] if config else [])]
    parser = ConfigParser(ConfigParser.load_config_files(files))
    parser["n_genes"] = 250
    return parser.get_parsed_content("network_def")


def _child(workload: str, case: str, seconds: float) -> None:
    """In a process of its own: print the mean seconds of a step."""
    if case in ("before", "passive"):  # torch's own number of threads
        from bundle.inference import inferers, run_tiles

        inferers.use_free_cores = run_tiles.use_free_cores = lambda: None
    step = {"training": _training, "prediction": _prediction}[workload]()
    for _ in range(_WARM_UP):
        step()
    started, steps = time.perf_counter(), 0
    while (elapsed := time.perf_counter() - started) < seconds:
        step()
        steps += 1
    print(f"seconds {elapsed / steps:.6f}")


def _measured(workload: str, case: str, seconds: float) -> float:
    chosen = {"OMP_NUM_THREADS", "MKL_NUM_THREADS", "OMP_WAIT_POLICY", "GOMP_SPINCOUNT"}
    env = {key: value for key, value in os.environ.items() if key not in chosen} | _CASES[case]
    command = [sys.executable, "-m", "benchmarks.busy", "--child", workload, case, str(seconds)]
    ended = subprocess.run(command, cwd=Path(__file__).parents[1], env=env, capture_output=True, text=True, check=False)
    lines = [line for line in ended.stdout.splitlines() if line.startswith("seconds ")]
    if not lines:
        raise RuntimeError(f"{workload}, {case}: {ended.stderr[-2000:]}")
    return float(lines[-1].split()[1])


@contextmanager
def _neighbours(count: int) -> Iterator[None]:
    """Other busy processes."""
    busy = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(count)]
    try:
        yield
    finally:
        for process in busy:
            process.kill()
            process.wait()


def main(argv: Sequence[str] | None = None) -> dict[str, Any] | None:
    """Run it."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--seconds", type=float, default=6.0, help="of each measurement")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--neighbours", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--child", nargs=3, help="(used by itself)")
    args = parser.parse_args(argv)
    if args.child:
        workload, case, seconds = args.child
        _child(workload, case, float(seconds))
        return None
    row("workload", "others", *_CASES, "(s a step)")
    found: dict[tuple[str, int], dict[str, float]] = {}
    for workload in _WORKLOADS:
        for count in args.neighbours:
            rounds: dict[str, list[float]] = {case: [] for case in _CASES}
            for _ in range(args.rounds):
                for case, seconds in rounds.items():
                    with _neighbours(count):
                        seconds.append(_measured(workload, case, args.seconds))
            found[workload, count] = {case: statistics.median(seconds) for case, seconds in rounds.items()}
            row(workload, count, *found[workload, count].values())
    idle = [s["now"] / s["before"] for (_, count), s in found.items() if count == 0]
    busy = [s["now"] / s["one thread"] for (_, count), s in found.items() if count > 0]
    result = {"idle_over_now": max(idle, default=None), "busy_over_one_thread": max(busy, default=None)}
    finish(result)
    return result


if __name__ == "__main__":
    main()
