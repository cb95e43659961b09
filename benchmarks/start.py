"""How long a command takes to say something: its help, a refusal, its first line, and what the libraries take.

`python -m benchmarks.start [--root CLONE]`: seconds of wall clock and of processor, medians. The latter are comparable
on a machine that others use too.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from .workload import default_run, finish, phantom_slide, row

__all__ = ["main"]


def _first_line(command: Sequence[str], root: Path) -> tuple[float, float]:
    """Wall clock and processor seconds until a command's first line; it is stopped then."""
    env = {**os.environ, "PYTHONWARNINGS": "ignore", "PYTHONUNBUFFERED": "1"}
    started = time.perf_counter()
    with subprocess.Popen(command, cwd=root, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as process:
        assert process.stdout is not None
        process.stdout.readline()
        wall = time.perf_counter() - started
        ticks = Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()[11:13]
        process.kill()
    return wall, sum(map(int, ticks)) / os.sysconf("SC_CLK_TCK")


def main(argv: Sequence[str] | None = None) -> dict[str, Any]:
    """Run it."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--root", type=Path, default=Path(__file__).parents[1], help="the clone to measure; this one")
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--quick", action="store_true", help="one run: shows that it works")
    args = parser.parse_args(argv)
    result: dict[str, Any] = {}
    with tempfile.TemporaryDirectory(prefix="pixnet-benchmark-") as folder:
        work = Path(folder)
        slide, run = str(phantom_slide(work, 1000)), str(default_run(work))
        pixnet = [sys.executable, "-m", "bundle.cli"]
        cases = {
            "--help": [*pixnet, "--help"],
            "a mistyped option": [*pixnet, "predict", "--bin-mu", "16"],
            "a slide that is not there": [*pixnet, "predict", "none.tif", f"{work}/o.h5ad", "--model", run],
            "first line of predict": [*pixnet, "predict", slide, f"{work}/o.h5ad", "--model", run, "--bin-um", "100"],
            "import torch": [sys.executable, "-c", "import torch; print()"],
            "import monai": [sys.executable, "-c", "import monai; print()"],
        }
        row("", "seconds", "processor s")
        for name, command in cases.items():
            times = [_first_line(command, args.root) for _ in range(1 if args.quick else args.runs)]
            wall, processor = (statistics.median(values) for values in zip(*times, strict=True))
            row(name, wall, processor)
            result[name] = {"seconds": wall, "processor_s": processor}
    finish(result)
    return result


if __name__ == "__main__":
    main()
