"""A configuration file that has been read."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import InputError
from ..files.reading import read_json
from .root import bundle_root

__all__ = ["ConfigFile", "read_config"]


@dataclass(frozen=True)
class ConfigFile:
    """A configuration file that has been read, to pass on in the place of its path."""

    path: Path
    content: dict[str, Any]


def read_config(file: str | Path | ConfigFile) -> ConfigFile:
    """Read a configuration file, unless it has been.

    Raises:
        InputError: if it does not exist or is no configuration.
    """
    if isinstance(file, ConfigFile):
        return file
    if not Path(file).is_file():
        raise InputError(f"No such configuration: {file}. PixNet's own are in {bundle_root() / 'configs'}.")
    content = read_json(file)
    if not isinstance(content, dict):
        raise InputError(f'{file} is not a configuration: it must hold keys and values, {{"max_epochs": 20}}.')
    return ConfigFile(Path(file), content)
