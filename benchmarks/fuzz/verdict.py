"""The verdict on a case, from files before and after, exit status, output, and the case's own check."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Sequence
from fnmatch import fnmatchcase
from glob import escape
from pathlib import Path

from .case import Case
from .runner import Outcome

__all__ = ["BAD", "VERDICTS", "judge", "snapshot"]

VERDICTS = ("sentence", "right", "traceback", "crash", "hang", "wrong", "executed")
BAD = VERDICTS[2:]
#: Files that the runner itself writes next to the case's.
_OWN = ("stdout.txt", "stderr.txt", "stdout2.txt", "stderr2.txt")
_TRACEBACK = "Traceback (most recent call last)"
#: Statuses of a refusal, of a cohort some of whose slides failed, of a command that was stopped.
_REFUSED, _COHORT, _STOPPED = 2, 1, (130, 143, -2, -15)


def snapshot(folder: Path) -> dict[str, str]:
    """What every file, link and folder below holds, by its path."""
    found = {}
    for parent, folders, files in os.walk(folder):
        for name in [*folders, *files]:
            path = Path(parent, name)
            relative = path.relative_to(folder).as_posix()
            if relative in _OWN:
                continue
            if path.is_symlink():
                found[relative] = f"link to {os.readlink(path)}"
            elif path.is_dir():
                found[relative] = "folder"
            elif path.is_file():
                found[relative] = hashlib.sha256(path.read_bytes()).hexdigest()
            else:
                found[relative] = "special"
    return found


def judge(
    case: Case, outcome: Outcome, folder: Path, marker: Path, before: dict[str, str], after: dict[str, str]
) -> tuple[str, str]:
    """The verdict and its reason.

    Args:
        case: what was run.
        outcome: what it did.
        folder: the case's.
        marker: what code in the input writes.
        before: `snapshot` of the folder.
        after: the same when the command was done.
    """
    if (marker.exists() or marker.is_symlink()) and not case.trusted:
        return "executed", "data ran as code"
    if outcome.status is None:
        return "hang", f"not done after {outcome.seconds:.0f} s"
    stopped = case.signal is not None and outcome.status in _STOPPED
    if outcome.status < 0 and not stopped:
        return "crash", f"signal {-outcome.status}"
    where = next((text for text in (outcome.err, outcome.out, *_logs(folder, after)) if _TRACEBACK in text), None)
    if where is not None:
        return "traceback", _cause(where)
    if stopped:
        return ("wrong", problem) if (problem := _leftovers(case, folder, before, after)) else ("right", "")
    if outcome.status == 0 or (case.partial and outcome.status == _COHORT):
        problem = _of_success(case, folder, before, after)
        return ("wrong", problem) if problem else ("right", "")
    problem = _of_refusal(case, outcome, folder, before, after)
    return ("wrong", problem) if problem else ("sentence", _last_line(outcome.err))


def _of_success(case: Case, folder: Path, before: dict[str, str], after: dict[str, str]) -> str | None:
    if case.must == "sentence":
        return "accepted what has to be refused"
    missing = [path.name for path in case.outputs if not path.exists()]
    if missing:
        return f"exit status 0 without {', '.join(missing)}"
    outputs = [escape(path.relative_to(folder).as_posix()) for path in case.outputs]
    allowed = [*outputs, *(f"{path}/*" for path in outputs), *case.writes]
    problem = _touched(before, after, allowed)
    if problem is None and case.check is not None:
        try:
            problem = case.check()
        except Exception as error:
            problem = f"the result cannot be read ({type(error).__name__}: {error})"
    return problem


def _of_refusal(
    case: Case, outcome: Outcome, folder: Path, before: dict[str, str], after: dict[str, str]
) -> str | None:
    said = _last_line(outcome.err) or _last_line(outcome.out)
    if outcome.status != _REFUSED:
        return f"exit status {outcome.status}: {said}"
    if len(re.findall(r"\w+", said)) < 4 or re.search(r"invalid \w+ value", said):  # argparse names a function
        return f"refused without a sentence: {said!r}"
    if case.must == "right":
        return f"refused what is harmless: {said}"
    return _leftovers(case, folder, before, after)


def _leftovers(case: Case, folder: Path, before: dict[str, str], after: dict[str, str]) -> str | None:
    return _touched(before, after, case.leaves)


def _touched(before: dict[str, str], after: dict[str, str], allowed: Sequence[str]) -> str | None:
    """Files that were changed, deleted or added although that is not allowed."""
    begun = [path for path in after if path not in before and re.search(r"\.part\b|\.lock$|\.partial|\.tmp", path)]
    litter = [path for path in begun if ".work/" not in path]  # the same command continues from there
    if litter:
        return f"left over: {litter[0]}"
    for path, content in before.items():
        if after.get(path) != content and not _matches(path, allowed):
            return f"{'changed' if path in after else 'deleted'}: {path}"
    added = [path for path in after if path not in before and not _matches(path, allowed)]
    return f"added: {', '.join(added[:3])}" if added else None


def _matches(path: str, patterns: Sequence[str]) -> bool:
    return any(fnmatchcase(path, pattern) for pattern in patterns)


def _logs(folder: Path, after: dict[str, str]) -> list[str]:
    return [(folder / path).read_text(errors="replace") for path in after if path.endswith(".log")]


def _cause(text: str) -> str:
    """The first exception of a chain."""
    named = re.search(
        r"^(?:\w+\.)*\w*(?:Error|Exception|Interrupt|Warning)\b.*$", text.partition(_TRACEBACK)[2], re.MULTILINE
    )
    return named[0][:300] if named else _last_line(text)


def _last_line(text: str) -> str:
    lines = [line for line in text.strip().splitlines() if line.strip()]
    return lines[-1][:300] if lines else ""
