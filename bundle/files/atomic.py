"""Write whole files or none: everything goes to a temporary name in the same folder and is then moved."""

from __future__ import annotations

import errno
import glob
import json
import os
import platform
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import InputError, cannot_write, is_input_error

__all__ = [
    "file_state",
    "make_folder",
    "move",
    "open_array",
    "read_state",
    "remove",
    "remove_abandoned",
    "remove_begun",
    "replacing",
    "replacing_folder",
    "write_json",
]


@contextmanager
def replacing(path: str | Path) -> Iterator[Path]:
    """Yield a temporary path in the same folder (same suffix); move it onto `path` if the block succeeds."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = _beside(path)
    try:
        with _writing(path):
            yield temporary
            os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def replacing_folder(path: str | Path) -> Iterator[Path]:
    """Yield a temporary folder beside `path`; it takes the place of `path` if the block succeeds."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    remove_abandoned(path)
    temporary = _beside(path)
    shutil.rmtree(temporary, ignore_errors=True)
    try:
        with _writing(path):
            yield temporary
            move(temporary, path)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


@contextmanager
def _writing(path: Path) -> Iterator[None]:
    """Say which file there was no room for, whichever library was writing it."""
    try:
        yield
    except (OSError, RuntimeError) as error:
        sentence = None if is_input_error(error) else cannot_write(error, path)
        if sentence is None:
            raise
        raise InputError(sentence) from error


#: Temporary names begin with the machine's, and go on with the process's number.
_MACHINE = f".{platform.node()}-"


def _beside(path: Path, what: str = "part") -> Path:
    """A name of this process alone; the ending stays, since libraries go by it."""
    return path.with_name(f"{_MACHINE}{os.getpid()}.{what}.{path.name}")


def remove_abandoned(path: Path, kinds: Sequence[str] = ("part", "old")) -> None:
    """Remove what processes of this machine that are no longer there had begun to write in the place of `path`."""
    if not Path("/proc/self").exists():  # who is still there is known on Linux alone
        return
    for what in kinds:  # begun, and set aside
        for begun in path.parent.glob(f"{glob.escape(_MACHINE)}*.{what}.{glob.escape(path.name)}"):
            pid = begun.name.removeprefix(_MACHINE).partition(".")[0]
            if pid.isdigit() and not Path("/proc", pid).exists():
                remove(begun)


def remove(path: Path) -> None:
    """Remove a file or a folder of our own making, if it is there; of a link, the link alone.

    (`bundle.files.ownership` says what is of our own making.)
    """
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    path.unlink(missing_ok=True)


def remove_begun(folder: Path) -> None:
    """Remove the files that a killed process had begun by `replacing`, or by Zarr's own writing, anywhere below."""
    for begun in [*folder.rglob(".*.part.*"), *folder.rglob("*.partial")]:
        begun.unlink()


def move(source: Path, target: Path) -> None:
    """Put a file or folder in the place of `target`, which may be there already.

    It is whole at every moment; a folder's name is free for an instant, while the earlier one is set aside.
    From another file system it is copied beside the target first.
    """
    try:
        _replace(source, target)
    except OSError as error:
        if error.errno != errno.EXDEV:
            raise
        beside = _beside(target)
        shutil.move(source, beside)
        _replace(beside, target)


def _replace(source: Path, target: Path) -> None:
    old = _beside(target, "old")
    if not source.is_dir() or not target.exists():
        os.replace(source, target)
        remove_abandoned(target, ("old",))
        return
    os.replace(target, old)
    try:
        os.replace(source, target)
    except OSError:
        os.replace(old, target)
        raise
    remove(old)
    remove_abandoned(target, ("old",))


def make_folder(path: str | Path) -> None:
    """Make a folder and those above it.

    Raises:
        InputError: if that is not possible.
    """
    try:
        Path(path).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"Nothing can be written to {path} ({error.strerror}); choose another place.") from error


def file_state(path: str | Path) -> list[Any]:
    """What tells a file from another of its name, for JSON: place, bytes and time of the last change."""
    path = Path(path).resolve()
    stat = path.stat()
    return [str(path), stat.st_size, stat.st_mtime_ns]


def open_array(path: Path, shape: tuple[int, ...], dtype: Any) -> np.ndarray:
    """A new array on disk (`.npy`) whose room is there from the start: a full disk would kill the process later.

    Raises:
        OSError: if there is no room.
    """
    array = np.lib.format.open_memmap(path, "w+", dtype, shape)
    if hasattr(os, "posix_fallocate") and array.nbytes:
        with path.open("r+b") as file:
            os.posix_fallocate(file.fileno(), 0, path.stat().st_size)
    return array


def read_state(path: Path) -> dict[str, Any]:
    """What an earlier command noted down for the next by `write_json`; nothing where it is missing or damaged."""
    try:
        content = json.loads(path.read_text())
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def write_json(path: str | Path, content: Any) -> None:
    """Write JSON in one move; NaN becomes null, so any parser reads it."""
    with replacing(path) as temporary:
        temporary.write_text(json.dumps(_finite(content), indent=2, allow_nan=False) + "\n")


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(k): _finite(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(v) for v in value]
    if hasattr(value, "item") and not isinstance(value, (str, bytes)):
        value = value.item()
    if isinstance(value, float) and value != value:
        return None
    return value
