"""What an encoder says when a package that it needs is not there."""

from __future__ import annotations

__all__ = ["MissingExtraError", "missing_extra"]


class MissingExtraError(ImportError):
    """An optional package is not installed; the sentence says how to get it."""

    for_user = True  # the command line prints the sentence alone


def missing_extra(what: str, extra: str) -> MissingExtraError:
    """What to say of something that needs an extra (PixNet is installed from a clone, not from PyPI)."""
    return MissingExtraError(
        f"{what} needs packages that are not installed: pip install '.[{extra}]' in a clone of PixNet."
    )
