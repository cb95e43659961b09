"""The one exception a user is meant to read."""

from __future__ import annotations

import difflib
import errno
from collections.abc import Iterable

__all__ = ["InputError", "did_you_mean", "missing_extra", "reason", "user_message"]

#: The disk or the quota is full, or the file system is read-only.
_NOT_WRITABLE = {errno.ENOSPC, errno.EDQUOT, errno.EROFS}


class InputError(ValueError):
    """Bad input, told in a sentence: what is wrong, where, and what to do.

    The command line prints the sentence alone; library users catch it as a `ValueError`.
    """

    #: Marks exceptions whose text is for the user. (The packages do not import each other, and each is importable
    #: under two names, so a class check would miss some.)
    for_user = True


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """` Did you mean "..."?` where a known name is close, whatever its case; else nothing."""
    folded = {str(k).casefold(): str(k) for k in known}
    close = difflib.get_close_matches(name.casefold(), folded, 1)
    return f' Did you mean "{folded[close[0]]}"?' if close else ""


def missing_extra(what: str, extra: str) -> InputError:
    """What to say where an optional dependency is not installed (PixNet is installed from a clone, not from PyPI)."""
    return InputError(f"{what}, which is not installed: pip install '.[{extra}]' in a clone of PixNet.")


def reason(error: BaseException) -> str:
    """What a library says is wrong, short enough to stand within a sentence."""
    return next(iter(str(error).strip().splitlines()), type(error).__name__)


def user_message(error: BaseException) -> str | None:
    """The sentence meant for the user among an exception and its causes, or None."""
    seen: BaseException | None = error
    while seen is not None:
        if isinstance(seen, OSError) and seen.errno in _NOT_WRITABLE:
            what = f"{seen.filename or 'The output'} cannot be written ({seen.strerror})"
            return f"{what}. Make room or choose another place, and run the command again."
        if getattr(seen, "for_user", False):
            # From a loader's worker it comes as "Caught ... Original Traceback ... <class>: <the sentence>".
            return str(seen).rpartition(f"{type(seen).__name__}: ")[2].strip()
        seen = seen.__cause__ or seen.__context__
    return None
