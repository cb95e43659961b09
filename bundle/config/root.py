"""Where the bundle's own configurations are, and how Python finds the classes that they name."""

from __future__ import annotations

import sys
from pathlib import Path

__all__ = ["bundle_root", "importable_root"]


def bundle_root() -> Path:
    """The folder that holds `configs`, `bundle`, `networks` and `transforms`."""
    return Path(__file__).resolve().parents[2]


def importable_root() -> Path:
    """`bundle_root()`, put on `sys.path`: configurations name `networks.PixNet`, not `pixnet.networks.PixNet`."""
    root = bundle_root()
    if str(root) not in sys.path:
        sys.path.insert(0, str(root))
    return root
