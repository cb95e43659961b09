"""`python -m benchmarks.fuzz --seeds A B`: see the package's own description."""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path

from . import kinds  # noqa: F401  # registers them
from .base import Base, make_base
from .case import KINDS, Build, Case, draw
from .runner import Bounds, Outcome, run
from .verdict import BAD, VERDICTS, judge, snapshot

__all__ = ["Result", "main", "try_case", "try_seed"]


@dataclass(frozen=True)
class Result:
    """One case.

    Attributes:
        seed: what repeats it.
        kind: of input.
        what: was done to it.
        command: that read it.
        verdict: one of `VERDICTS`.
        why: the sentence, or what is wrong.
        seconds: of the command.
    """

    seed: int
    kind: str
    what: str
    command: str
    verdict: str
    why: str
    seconds: float


def try_case(case: Case, build: Build, bounds: Bounds) -> tuple[str, str, Outcome]:
    """Run a case in its folder and judge it."""
    bounds = Bounds(bounds.seconds * case.patience, int(bounds.cpu_seconds * case.patience), bounds.memory_gb)
    try:
        for function, arguments in case.first:
            outcome = run(arguments, build.folder, bounds, function)
            if outcome.status != 0:
                raise RuntimeError(f"what comes before the case failed: {outcome.err[-500:]}")
        if case.between is not None:
            case.what += case.between()
        before = snapshot(build.folder)
        outcome = run(case.arguments, build.folder, bounds, case.function, case.signal)
        verdict, why = judge(case, outcome, build.folder, build.marker, before, snapshot(build.folder))
        if case.signal is not None and verdict == "right":
            case.signal = None
            outcome = run(case.arguments, build.folder, bounds, case.function)
            verdict, why = judge(case, outcome, build.folder, build.marker, before, snapshot(build.folder))
    finally:
        if case.clean is not None:
            case.clean()
    return verdict, why, outcome


def try_seed(seed: int, work: Path, base: Base, bounds: Bounds, only: str | None = None, keep: bool = False) -> Result:
    """Build the case of a seed, run it and judge it."""
    name, rng = draw(seed, only)
    folder = work / "cases" / f"{seed}-{name}"
    shutil.rmtree(folder, ignore_errors=True)
    build = Build(folder, base, rng)
    try:
        case = KINDS[name][1](build)
    except Exception as error:
        raise RuntimeError(f"The case of seed {seed} ({name}) cannot be built.") from error
    verdict, why, outcome = try_case(case, build, bounds)
    command = " ".join([case.function if case.function != "pixnet" else "pixnet", *map(str, case.arguments)])
    if keep:
        print(f"\nseed {seed}, {name}: {case.what}\nfolder: {folder}\n$ {command}\n{outcome.out}{outcome.err}")
        print(f"exit status {outcome.status} after {outcome.seconds:.1f} s; must be {case.must}")
    else:
        shutil.rmtree(folder, ignore_errors=True)
    return Result(seed, name, case.what, command, verdict, why.replace(str(work), "WORK"), round(outcome.seconds, 2))


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
    base, bounds = make_base(work / "base"), Bounds(seconds=args.seconds)
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


if __name__ == "__main__":
    try:
        status = main()
    except RuntimeError:
        traceback.print_exc()
        status = 3
    sys.exit(status)
