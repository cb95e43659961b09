"""Only one command at a time writes an output."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from ..errors import InputError
from .atomic import make_folder

__all__ = ["output_lock"]


@contextmanager
def output_lock(
    path: str | Path, wait: bool = False, what: str | None = None, may_hold_it: bool = False
) -> Iterator[None]:
    """Have an output for this command alone, by a lock file beside it that is gone in the end.

    A killed process leaves the file, but not the lock.

    Args:
        path: the output.
        wait: until another command is done, instead of refusing.
        what: is in use, for the message; the output by default.
        may_hold_it: whether this thread may hold the lock already, by a call that said the same.

    Raises:
        InputError: if another command is writing it, or nothing can be written there.
    """
    path = Path(path)
    make_folder(path.parent)
    if not os.access(path.parent, os.W_OK):
        raise InputError(f"Nothing can be written to {path.parent}; choose another place.")
    file = path.parent.resolve() / f".{path.name}.lock"
    lock = FileLock(file, timeout=-1 if wait else 0, is_singleton=may_hold_it)
    try:
        lock.acquire()
    except Timeout as error:
        raise InputError(
            f"{what or path} is in use: another command is writing the same output. Wait until it is done, or give "
            "another name."
        ) from error
    try:
        yield
    finally:
        if lock.lock_counter == 1:
            file.unlink(missing_ok=True)  # while it is held; who waits for it sees that it is gone
        lock.release()
