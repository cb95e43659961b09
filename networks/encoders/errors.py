"""What an encoder says when a package or the pictures that it needs are not there."""

from __future__ import annotations

from ..errors import InputError

__all__ = ["MissingExtraError", "TooLittleError", "missing_extra"]


class MissingExtraError(InputError, ImportError):
    """An optional package is not installed; the sentence says how to get it."""


class TooLittleError(InputError):
    """Too little was given to learn from."""


def missing_extra(what: str, extra: str) -> MissingExtraError:
    """What to say of something that needs an extra (PixNet is installed from a clone, not from PyPI)."""
    return MissingExtraError(
        f"{what} needs packages that are not installed: pip install '.[{extra}]' in a clone of PixNet."
    )
