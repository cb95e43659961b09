"""The one exception that a person is meant to read, and how to word it."""

from __future__ import annotations

import difflib
import errno
import os
import re
from collections.abc import Iterable
from importlib import import_module

__all__ = [
    "InputError",
    "cannot_write",
    "did_you_mean",
    "is_input_error",
    "missing_extra",
    "plural",
    "reason",
    "require_extra",
    "short",
    "user_message",
]

#: The disk or the quota is full, or the file system is read-only.
_NOT_WRITABLE = {errno.ENOSPC, errno.EDQUOT, errno.EROFS}
#: How libraries that write through C or C++ say the same (HDF5, and PyTorch's archives, which say no more than that).
_NO_ROOM = re.compile(
    r"No space left on device|Disk quota exceeded|Read-only file system|errno = (28|122|30)\b"
    r"|inline_container\.cc:\d+\] \. unexpected pos|PytorchStreamWriter failed|iostream error"
)


class InputError(ValueError):
    """Bad input, in a sentence: what is wrong, where, and what to do.

    The command line prints the sentence alone; library users catch it as a `ValueError`.
    """


#: Each package has this class, and each can be imported under two names (`bundle`, `pixnet.bundle`), so there are
#: several classes of one name. `isinstance` knows one of them, `is_input_error` all.
_INPUT_ERRORS = {f"{package}.errors.InputError" for package in ("bundle", "networks", "transforms")}


def is_input_error(error: BaseException) -> bool:
    """Whether an exception is an `InputError` of `bundle`, `networks` or `transforms`, however it was imported."""
    names = (f"{kind.__module__}.{kind.__qualname__}" for kind in type(error).__mro__)
    return any(name.removeprefix("pixnet.") in _INPUT_ERRORS for name in names)


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """` Did you mean "..."?` where a known name is close, whatever its case; else nothing."""
    folded = {str(k).casefold(): str(k) for k in known}
    close = difflib.get_close_matches(name.casefold(), folded, 1)
    return f' Did you mean "{folded[close[0]]}"?' if close else ""


def missing_extra(what: str, extra: str) -> InputError:
    """The error for an optional dependency that is not installed (PixNet is installed from a clone, not from PyPI)."""
    return InputError(f"{what}, which is not installed: pip install '.[{extra}]' in a clone of PixNet.")


def require_extra(module: str, what: str, extra: str) -> None:
    """Import an optional dependency before work starts that needs it.

    Raises:
        InputError: naming the extra that installs it, if it is missing.
    """
    try:
        import_module(module)
    except ModuleNotFoundError as error:
        raise missing_extra(f"{what} needs {module}", extra) from error


def plural(count: int, thing: str) -> str:
    """A count and its thing: `1 slide`, `2,000 slides`."""
    return f"{count:,} {thing}{'' if count == 1 else 's'}"


def reason(error: BaseException) -> str:
    """What a library says is wrong, short enough to stand within a sentence."""
    return next(iter(str(error).strip().splitlines()), type(error).__name__)


def short(text: object, most: int = 120) -> str:
    """A user's own text, short enough to stand within a sentence."""
    said = str(text)
    return said if len(said) <= most else f"{said[:most]}... ({len(said):,} characters)"


def user_message(error: BaseException) -> str | None:
    """The sentence meant for the user among an exception and its causes, or None.

    Such are sentences of our own, and what the operating system refuses about a file that it names. Anything else is a
    fault of the program and stays a traceback.
    """
    seen: BaseException | None = error
    named = True  # by the error itself or its stated cause, and not by what merely was handled when it came up
    while seen is not None:
        if is_input_error(seen):
            # From a loader's worker it comes as "Caught ... Original Traceback ... <class>: <the sentence>".
            return str(seen).rpartition(f"{type(seen).__name__}: ")[2].strip()
        if (sentence := cannot_write(seen) or (_of_system(seen) if named else None)) is not None:
            return sentence
        named = named and seen.__cause__ is not None
        seen = seen.__cause__ or seen.__context__
    return None


def cannot_write(error: BaseException, path: object = None) -> str | None:
    """The sentence for a full disk or quota or a read-only file system, whatever library found it; else None.

    Args:
        error: what was raised.
        path: what was being written, where the error does not name it.
    """
    known = isinstance(error, OSError) and error.errno in _NOT_WRITABLE
    if not known and not (isinstance(error, (OSError, RuntimeError)) and _NO_ROOM.search(str(error))):
        return None
    name = path or getattr(error, "filename", None) or "The output"
    why = getattr(error, "strerror", None) or "no room is left, or the file system is read-only"
    return f"{name} cannot be written ({why}). Make room or choose another place, and run the command again."


def _of_system(error: BaseException) -> str | None:
    """What the operating system refused about a file that it names."""
    if isinstance(error, OSError) and error.errno and isinstance(error.filename, (str, os.PathLike)):
        return f"{short(error.filename, 300)} cannot be used ({error.strerror}). Check the path and its permissions."
    if isinstance(error, RuntimeError) and str(error).startswith("Symlink loop from"):  # pathlib before Python 3.13
        return f"{str(error).removeprefix('Symlink loop from ')} is a link that leads back to itself. Check the path."
    return None
