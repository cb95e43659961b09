"""What can be wrong with a slide."""

from __future__ import annotations

from ..errors import InputError

__all__ = ["SlideError", "UnsupportedLayout"]


class SlideError(InputError):
    """A slide that cannot be used."""


class UnsupportedLayout(ValueError):
    """A reader cannot read this layout exactly; the file itself may be sound."""
