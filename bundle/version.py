"""The version, which stands in the bundle's metadata: also where the bundle is a folder that nobody installed."""

from __future__ import annotations

import json
from pathlib import Path

__all__ = ["bundle_version"]


def bundle_version() -> str:
    """Such as 0.1.0, of `configs/metadata.json`."""
    path = Path(__file__).resolve().parent.parent / "configs" / "metadata.json"
    return json.loads(path.read_text())["version"]
