"""Where the bundle's own configurations are."""

from __future__ import annotations

from pathlib import Path

__all__ = ["bundle_root"]


def bundle_root() -> Path:
    """The folder that holds `configs`, `bundle`, `networks` and `transforms`."""
    return Path(__file__).resolve().parents[2]
