"""One case: built, run and judged."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from . import kinds  # noqa: F401  # registers them
from .base import Base
from .case import KINDS, Build, Case, draw
from .runner import Bounds, Outcome, run
from .verdict import BAD, judge, snapshot

__all__ = ["Result", "try_case", "try_seed"]


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
                return "wrong", f"what comes before the case failed: {outcome.err[-500:]}", outcome
        if case.between is not None:
            case.what += case.between()
        before = snapshot(build.folder)
        if case.at_once is not None:
            return _try_two(case, case.at_once, build, bounds, before)
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


def _try_two(
    case: Case, other: Sequence[str], build: Build, bounds: Bounds, before: dict[str, str]
) -> tuple[str, str, Outcome]:
    """Two commands at once: each is judged as if it were alone, but what a refused one finds is the other's."""
    with ThreadPoolExecutor(2) as pool:
        second = pool.submit(run, other, build.folder, bounds, case.function, None, "2")
        outcomes = [run(case.arguments, build.folder, bounds, case.function), second.result()]
    after = snapshot(build.folder)
    succeeded = [outcome for outcome in outcomes if outcome.status == 0]
    for outcome in outcomes:
        nothing = before if outcome.status and succeeded else after
        verdict, why = judge(case, outcome, build.folder, build.marker, before, nothing)
        if verdict in BAD:
            return verdict, why, outcome
    if not succeeded:
        return "wrong", "both were refused", outcomes[0]
    if case.alone and len(succeeded) == 2:
        return "wrong", "both report success, and one result is lost", outcomes[0]
    return "right", "", outcomes[0]


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
