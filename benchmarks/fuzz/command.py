"""The command: tries seeds, several at once, and prints their verdicts."""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path

from .base import make_base
from .case import KINDS
from .runner import Bounds, preload
from .trial import Result, try_seed
from .verdict import BAD, VERDICTS

__all__ = ["main"]


def main(argv: Sequence[str] | None = None) -> int:
    """Try the seeds; the status is 1 if any verdict is bad."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.fuzz", description="Seeded corruptions, judged.")
    parser.add_argument("--seeds", type=int, nargs=2, default=(0, 300), metavar=("A", "B"), help="from A to before B")
    parser.add_argument("--only", choices=sorted(KINDS), metavar="KIND", help="cases of one kind of input")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="cases at once, a thread each")
    parser.add_argument("--work", type=Path, help="folder for what is generated once; a temporary one by default")
    parser.add_argument("--out", type=Path, help="JSON of all verdicts to write")
    parser.add_argument("--seconds", type=float, default=Bounds.seconds, help="after which a command hangs")
    parser.add_argument("--list", action="store_true", help="name the kinds and end")
    parser.add_argument("-v", action="store_true", dest="keep", help="keep the folders; print commands and stderr")
    args = parser.parse_args(argv)
    if args.list:
        print("\n".join(f"{name:12} {weight}" for name, (weight, _) in sorted(KINDS.items())))
        return 0
    sys.stdout.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]  # names of files may be no text
    os.environ |= {"OMP_NUM_THREADS": "1", "MPLBACKEND": "agg", "PYTHONWARNINGS": "ignore"}
    work = args.work or Path(tempfile.mkdtemp(prefix="pixnet-fuzz-"))
    try:
        results = _try_all(range(*args.seeds), work.resolve(), args)
    finally:
        if args.work is None and not args.keep:
            shutil.rmtree(work, ignore_errors=True)
    if args.out is not None:
        args.out.write_text(json.dumps([asdict(result) for result in results], indent=1) + "\n")
    count = Counter(result.verdict for result in results)
    print(json.dumps({"cases": len(results), **{verdict: count[verdict] for verdict in VERDICTS}}))
    return int(any(count[verdict] for verdict in BAD))


def _try_all(seeds: Sequence[int], work: Path, args: argparse.Namespace) -> list[Result]:
    preload()
    base, bounds = make_base(work), Bounds(seconds=args.seconds)
    state, started, results = base.state(), time.monotonic(), []
    with ThreadPoolExecutor(args.jobs) as pool:
        for result in pool.map(lambda seed: try_seed(seed, work, base, bounds, args.only, args.keep), seeds):
            results.append(result)
            if result.verdict in BAD:
                print(f"{result.verdict:10} {result.kind}: {result.what}: {result.why}")
                only = f" --only {args.only}" if args.only else ""
                print(f"{'':10} again: --seeds {result.seed} {result.seed + 1}{only} -v", flush=True)
            elif args.keep:
                print(f"{result.verdict:10} {result.kind}: {result.what}: {result.why}")
    if base.state() != state:
        raise RuntimeError(
            f"A case changed a file of {base.folder}, which no case may touch: remove it and find which."
        )
    print(f"{len(results)} cases in {time.monotonic() - started:.0f} s", file=sys.stderr)
    return results
