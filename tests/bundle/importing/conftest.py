"""Samples in the layouts of `tests/bundle/readers/`."""

from __future__ import annotations

from tests.bundle.readers.conftest import her2st, specimen, write_10x, write_section

__all__ = ["her2st", "specimen", "write_10x", "write_section"]
