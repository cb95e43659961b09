"""What is read from the repository: the version, which the bundle's metadata holds, and the list of packages.

Everything else is in pyproject.toml.
"""

import json
from pathlib import Path

from setuptools import find_packages, setup

ROOMS = ("bundle", "networks", "transforms")
root = Path(__file__).parent
own = find_packages(
    root, include=[pattern for room in ROOMS for pattern in (room, f"{room}.*")], exclude=["bundle.public"]
)

setup(
    version=json.loads((root / "configs" / "metadata.json").read_text())["version"],
    packages=["pixnet", "pixnet.configs", "pixnet.docs", *(f"pixnet.{name}" for name in own)],
)
