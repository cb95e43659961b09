"""Whole slides of any format as one thing: uint8 RGB pixels at any micrometres per pixel (mpp)."""

from __future__ import annotations

from .errors import SlideError
from .reader import Slide, SlideReader

__all__ = ["Slide", "SlideError", "SlideReader"]
