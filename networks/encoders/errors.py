"""What an encoder says when a package or the pictures that it needs are not there."""

from __future__ import annotations

__all__ = ["MissingExtraError", "TooLittleError", "missing_extra"]


class MissingExtraError(ImportError):
    """An optional package is not installed; the sentence says how to get it."""

    for_user = True  # the command line prints the sentence alone


class TooLittleError(ValueError):
    """Too little was given to learn from."""

    too_little = True  # what the training turns into a sentence about its slides


def missing_extra(what: str, extra: str) -> MissingExtraError:
    """What to say of something that needs an extra (PixNet is installed from a clone, not from PyPI)."""
    return MissingExtraError(
        f"{what} needs packages that are not installed: pip install '.[{extra}]' in a clone of PixNet."
    )
