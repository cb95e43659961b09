"""Exceptions of encoders: a missing package, or too few images."""

from __future__ import annotations

from ..errors import InputError

__all__ = ["MissingExtraError", "TooLittleError", "missing_extra"]


class MissingExtraError(InputError, ImportError):
    """An optional package is not installed; the sentence says how to get it."""


class TooLittleError(InputError):
    """There is too little data to learn from."""


def missing_extra(what: str, extra: str) -> MissingExtraError:
    """The exception for `what`, which needs an extra (PixNet is installed from a clone, not from PyPI)."""
    return MissingExtraError(
        f"{what} needs packages that are not installed: pip install '.[{extra}]' in a clone of PixNet."
    )
