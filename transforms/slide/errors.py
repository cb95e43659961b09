"""What can be wrong with a slide."""

from __future__ import annotations

__all__ = ["SlideError", "UnsupportedLayout"]


class SlideError(ValueError):
    """A slide that cannot be used, in a sentence: what is wrong, where, and what to do."""

    for_user = True  # the command line prints the sentence alone


class UnsupportedLayout(ValueError):
    """A reader cannot read this layout exactly; the file itself may be sound."""
