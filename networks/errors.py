"""The one exception that a person is meant to read."""

from __future__ import annotations

__all__ = ["InputError"]


class InputError(ValueError):
    """Bad input, in a sentence: what is wrong, where, and what to do.

    The command line prints the sentence alone; library users catch it as a `ValueError`.
    """
