"""What an encoder says when a package that it needs is not there."""

from __future__ import annotations

__all__ = ["MissingExtraError"]


class MissingExtraError(ImportError):
    """An optional package is not installed; the sentence says how to get it."""

    for_user = True  # the command line prints the sentence alone
