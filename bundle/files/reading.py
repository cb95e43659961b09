"""Read files from outside: whatever is wrong with one becomes a sentence that names it."""

from __future__ import annotations

import json
import os
import stat
import struct
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ..errors import InputError, is_input_error, reason, short, user_message
from .checking import check

__all__ = ["check_file", "read_json", "read_text", "reading"]

#: What libraries raise when a file is cut short, damaged or not what its name says. (JSON, UTF-8, NumPy, pandas and
#: HDF5 raise ValueErrors or OSErrors; a damaged header can also ask for more memory than there is.)
_DAMAGED = (
    OSError,
    EOFError,
    ValueError,
    TypeError,
    LookupError,
    ArithmeticError,
    AttributeError,
    MemoryError,
    RecursionError,
    RuntimeError,
    NotImplementedError,
    AssertionError,
    SyntaxError,
    struct.error,
    zlib.error,
    zipfile.BadZipFile,
)


def check_file(path: str | Path, advice: str = "Check the path.", may_be_empty: bool = False) -> Path:
    """Refuse what is no regular file with content; a pipe or a device would be waited for.

    Args:
        path: the file.
        advice: what to do where it is missing, a sentence.
        may_be_empty: leave it to the reader to say that nothing is in it.

    Raises:
        InputError: if it is missing, a folder, a pipe or device, empty, or may not be read.
    """
    try:
        state = os.stat(path)
    except (OSError, ValueError) as error:  # a name that holds a null byte is a ValueError
        missing = isinstance(error, (FileNotFoundError, NotADirectoryError))
        why = "" if missing else f" ({getattr(error, 'strerror', None) or error})"
        raise InputError(f"No such file: {short(path)}{why}. {advice}") from error
    if stat.S_ISDIR(state.st_mode):
        raise InputError(f"{path} is a folder, not a file. {advice}")
    if not stat.S_ISREG(state.st_mode):
        raise InputError(f"{path} is no regular file, but a pipe or a device. Copy its content to a file first.")
    if state.st_size == 0 and not may_be_empty:
        raise InputError(f"{path} is empty. Copy it again.")
    if not os.access(path, os.R_OK):
        raise InputError(f"{path} cannot be read (Permission denied). Change its permissions or copy it.")
    return Path(path)


@contextmanager
def reading(
    path: str | Path, fault: str, advice: str = "It may be cut short or damaged: copy it again."
) -> Iterator[None]:
    """Translate what a library raises while it reads a file from outside.

    Put the call that decodes the file inside, and nothing else: errors of our own code must stay visible.

    Args:
        path: the file.
        fault: what to say of it, "cannot be read as AnnData".
        advice: what to do, a sentence.

    Raises:
        InputError: in the place of the library's error.
    """
    try:
        yield
    except _DAMAGED as error:
        if is_input_error(error) or (isinstance(error, OSError) and error.errno and user_message(error)):
            raise
        raise InputError(f"{path} {fault} ({short(reason(error), 200)}). {advice}") from error


def read_text(path: str | Path, advice: str = "Check the path.") -> str:
    """A text file in UTF-8, with or without a byte-order mark.

    Raises:
        InputError: if it cannot be read.
    """
    path = check_file(path, advice)
    with reading(path, "cannot be read as text", "Save it as UTF-8."):
        return path.read_text(encoding="utf-8-sig")


def read_json(path: str | Path, advice: str = "Copy it again.", schema: dict[str, Any] | None = None) -> Any:
    """A JSON file, checked where there is a schema; NaN and infinite numbers, which JSON does not have, are refused.

    Raises:
        InputError: if it cannot be read, is not JSON, or is not as the schema says.
    """
    text = read_text(path, advice)
    try:
        content = json.loads(text, parse_constant=_no_constant)
    except json.JSONDecodeError as error:
        raise InputError(f"{path} is not valid JSON (line {error.lineno}: {error.msg}). {advice}") from error
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path} is not valid JSON ({reason(error)}). {advice}") from error
    if schema is not None:
        check(content, schema, str(path))
    return content


def _no_constant(name: str) -> Any:
    raise ValueError(f"it holds {name}")
