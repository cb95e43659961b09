"""A phantom."""

from __future__ import annotations

from .dataset import make_phantom
from .measure import Layout, parse_layouts

__all__ = ["Layout", "make_phantom", "parse_layouts"]
