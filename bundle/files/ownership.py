"""What PixNet wrote, and may therefore replace or delete. Anything else is refused in a sentence.

A folder of ours carries a marker. A file or a Zarr of ours is known by what only PixNet writes into it.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from ..errors import InputError
from .atomic import make_folder, read_state, remove, write_json
from .recognise import is_ours

__all__ = [
    "EARLIER_RUN",
    "MARKER",
    "RUN",
    "WORK",
    "check_folder",
    "check_output",
    "claim",
    "claim_run",
    "claimed_run",
    "clear",
    "remove_ours",
]

#: By which a folder without a marker is known: a key of its JSON, a table's first line, or a test of its JSON.
Sign = str | Callable[[dict[str, Any]], bool]
Earlier = Mapping[str, Sign]

#: The file that marks a folder as PixNet's.
MARKER = ".pixnet.json"
#: What training, evaluation and reports write into a run folder, and by what one of an earlier version is known.
RUN = ("configs", "models", "checkpoints", "evaluation", "metrics.csv", "report.html")
EARLIER_RUN: Earlier = {"configs/train.json": "network_def", "configs/model.json": "network_def"}
#: What a prediction writes into a slide's work folder.
WORK = ("plan.json", "done.json", "map.zarr", "pooled*.npy", ".*.part*", ".*.old.*")
_ABOUT = "PixNet made this folder and may replace or delete what it wrote into it."
_WHOSE = "another program, an earlier version, or damage"


def check_output(path: str | Path, inputs: Iterable[str | Path | None] = ()) -> None:
    """Refuse to write where something else would be lost.

    Args:
        path: the file or Zarr to write.
        inputs: files and folders that the command reads.

    Raises:
        InputError: if it is one of the inputs under any name, holds one or lies in one, or is there and is not known
            as PixNet's.
    """
    path = Path(path)
    for item in inputs:
        if item is not None and _within(path, Path(item)):
            raise InputError(f"{path} would replace {item}, which this command reads. Give the output another name.")
    if not os.path.lexists(path) or is_ours(path):
        return
    raise InputError(
        f"PixNet does not recognise {path} as its own ({_WHOSE}). Remove it if you do not need it, or give the output "
        "another name."
    )


def check_folder(folder: str | Path, source: str | Path) -> None:
    """Refuse to write into the very folder that the command reads.

    Raises:
        InputError: if so.
    """
    if os.path.realpath(folder) == os.path.realpath(source):
        raise InputError(f"{folder} is the folder that this command reads. Give the output another folder.")


def claim(
    folder: str | Path,
    kind: str,
    names: Iterable[str] | None = None,
    earlier: Earlier | None = None,
    mark: bool = True,
) -> Path:
    """Make a folder, and mark it as PixNet's unless something else would be lost.

    Args:
        folder: the folder.
        kind: what PixNet writes there, such as "run". A folder may be of several kinds; each is claimed.
        names: what PixNet writes into it; other things may lie there too. By default it must be empty.
        earlier: a file's name (or pattern) and a key of its JSON, or a table's first line, or a test of its JSON, by
            which a folder without a marker is known, such as one of an earlier version.
        mark: put the marker into it; needless where `earlier` knows the folder as soon as anything is in it.

    Raises:
        InputError: if it is not marked as of this kind and holds what would be replaced, or cannot be written to.
    """
    folder = Path(folder)
    if os.path.lexists(folder) and not folder.is_dir():
        raise InputError(f"Nothing can be written to {folder}: it is a file, not a folder; choose another place.")
    make_folder(folder)
    kinds = _kinds(folder)
    if kind not in kinds:
        present = (p.name for p in folder.iterdir() if p.name != MARKER)
        found = sorted(name for name in present if names is None or name in set(names))
        if found and not any(_knows(p, sign) for name, sign in (earlier or {}).items() for p in folder.glob(name)):
            raise InputError(
                f"{folder} holds {', '.join(found[:3])}{' and more' * (len(found) > 3)}, which PixNet does not "
                f"recognise as its own ({_WHOSE}) and would replace. Give another folder."
            )
        if mark:
            write_json(folder / MARKER, {"about": _ABOUT, "kinds": [*kinds, kind]})
    return folder


def clear(folder: str | Path, kind: str, names: Iterable[str], earlier: Earlier | None = None) -> Path:
    """Claim a folder and remove from it what PixNet writes into such a one; anything else stays.

    Args:
        folder: the folder.
        kind: see `claim`.
        names: what PixNet writes into it, as patterns.
        earlier: see `claim`.

    Raises:
        InputError: if it is not of this kind and holds anything.
    """
    folder = claim(folder, kind, None, earlier)
    _empty(folder, names)
    return folder


def claim_run(folder: str | Path) -> Path:
    """Claim a run folder; other files, such as a log, may lie in it.

    Raises:
        InputError: if it holds what training would replace and what is not known as PixNet's.
    """
    return claim(folder, "run", RUN, EARLIER_RUN)


@contextmanager
def claimed_run(folder: str | Path) -> Iterator[Path]:
    """Claim a run folder for a block; where the block fails before it wrote anything, the claim is undone.

    Raises:
        InputError: see `claim_run`.
    """
    is_new, marker = not os.path.lexists(folder), Path(folder) / MARKER
    before = marker.read_text() if marker.is_file() else None
    folder = claim_run(folder)
    try:
        yield folder
    except BaseException:
        if before is None and [item.name for item in folder.iterdir()] == [MARKER]:
            marker.unlink()
            if is_new:
                folder.rmdir()
        raise


def remove_ours(folder: str | Path, kind: str, names: Iterable[str]) -> None:
    """Remove what PixNet wrote into a folder that it marked as of this kind, and the folder if nothing else is there.

    Args:
        folder: the folder; one that is not marked so is left as it is.
        kind: see `claim`.
        names: what PixNet writes into it, as patterns.
    """
    folder = Path(folder)
    if kind not in _kinds(folder):
        return
    _empty(folder, names)
    if [item.name for item in folder.iterdir()] == [MARKER]:
        (folder / MARKER).unlink()
        if not folder.is_symlink():
            folder.rmdir()


def _empty(folder: Path, names: Iterable[str]) -> None:
    patterns = tuple(names)
    for item in folder.iterdir():
        if any(fnmatchcase(item.name, pattern) for pattern in patterns):
            remove(item)


def _kinds(folder: Path) -> list[str]:
    """What a folder is marked as."""
    kinds = read_state(folder / MARKER).get("kinds")
    return [str(kind) for kind in kinds] if isinstance(kinds, list) else []


def _within(path: Path, item: Path) -> bool:
    """Whether two are the same, or one lies in the other, under any names."""
    a, b = Path(os.path.realpath(path)), Path(os.path.realpath(item))
    if a == b or (a in b.parents and a.suffix == ".zarr") or (b in a.parents and b.suffix == ".zarr"):
        return True
    return path.exists() and item.exists() and os.path.samefile(path, item)  # hard links


def _knows(path: Path, sign: Sign) -> bool:
    try:
        text = path.read_text(encoding="utf-8")
        if path.suffix != ".json":
            return text.partition("\n")[0] == sign
        content = json.loads(text)
        return isinstance(content, dict) and (sign in content if isinstance(sign, str) else sign(content))
    except (OSError, ValueError, RecursionError, LookupError, TypeError, AttributeError):
        return False
