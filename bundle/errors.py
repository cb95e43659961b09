"""The one exception a user is meant to read."""

from __future__ import annotations

__all__ = ["InputError", "reason", "user_message"]


class InputError(ValueError):
    """Bad input, told in a sentence: what is wrong, where, and what to do.

    The command line prints the sentence alone; library users catch it as a `ValueError`.
    """

    #: Marks exceptions whose text is for the user. (The packages do not import each other, and each is importable
    #: under two names, so a class check would miss some.)
    for_user = True


def reason(error: BaseException) -> str:
    """What a library says is wrong, short enough to stand within a sentence."""
    return next(iter(str(error).strip().splitlines()), type(error).__name__)


def user_message(error: BaseException) -> str | None:
    """The sentence meant for the user among an exception and its causes, or None."""
    seen: BaseException | None = error
    while seen is not None:
        if getattr(seen, "for_user", False):
            # From a loader's worker it comes as "Caught ... Original Traceback ... <class>: <the sentence>".
            return str(seen).rpartition(f"{type(seen).__name__}: ")[2].strip()
        seen = seen.__cause__ or seen.__context__
    return None
