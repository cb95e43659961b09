"""Reads the version, which the bundle's metadata holds; everything else is in pyproject.toml."""

import json
from pathlib import Path

from setuptools import setup

setup(version=json.loads((Path(__file__).parent / "configs" / "metadata.json").read_text())["version"])
