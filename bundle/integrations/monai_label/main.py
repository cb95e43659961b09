"""What MONAI Label runs, outside of any package, to find the app."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path

_ROOT = str(Path(__file__).resolve().parents[3])
if _ROOT not in sys.path:
    sys.path.insert(0, _ROOT)

PixNetApp = importlib.import_module("bundle.integrations.monai_label.app").PixNetApp
