"""Merge configuration files and keys into one configuration; refuse keys that do not exist."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from monai.bundle import ConfigParser
from monai.bundle.utils import merge_kv

from ..errors import InputError, did_you_mean
from ..files.checking import check
from ..files.reading import read_json
from ..files.schemas import MODEL
from .literals import as_code, escape
from .root import bundle_root
from .values import check_value
from .written import as_written

__all__ = ["ConfigFile", "merge_config", "read_config"]

#: Keys that an override may add.
_MAY_ADD = {"finalize", "start_from"}


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


def merge_config(files: Sequence[str | Path | ConfigFile], overrides: Mapping[str, Any]) -> dict[str, Any]:
    """The merged configuration, refusing keys that the base file does not have.

    Args:
        files: configuration files, which may hold code.
        overrides: keys and values. Text is data, unless it is `Code`.

    Raises:
        InputError: if a file or a key does not exist, or a value does not suit its key.
    """
    parser = ConfigParser()
    base, *others = map(read_config, files)
    parser.set(deepcopy(base.content))
    for file in others:
        for key, value in deepcopy(file.content).items():
            _set(parser, key, as_code(value), str(file.path))
    for key, value in overrides.items():
        _set(parser, key, value, "--set")
    config = as_written({k: v for k, v in parser.get().items() if k != "_meta_"})
    check(config, MODEL, "The configuration")
    return config


def _set(parser: ConfigParser, key: str, value: Any, source: str) -> None:
    plain = key.replace("::", "#").lstrip("+")
    if not plain or (plain not in parser and plain not in _MAY_ADD):
        parent = plain.rpartition("#")[0]
        siblings = parser.get(parent) if parent and parent in parser else parser.get()
        known = sorted(k for k in siblings if not k.startswith("_")) if isinstance(siblings, dict) else []
        where = f" in {parent}" if parent and parent in parser else ""
        hint = did_you_mean(plain.rpartition("#")[2], known) or f" Known{where}: {', '.join(known)}."
        raise InputError(f'{source}: there is no key "{plain}".{hint}')
    if value is not None or parser.get(plain) is not None:
        check_value(plain, value, _usual(parser, plain), source)
    merge_kv(parser, f"+{plain}" if key.startswith("+") and plain in parser else plain, escape(value))


def _usual(parser: ConfigParser, key: str) -> Any:
    """What the configuration has at a key, or where that refers to."""
    usual, seen = parser.get(key), {key}
    while isinstance(usual, str) and usual.startswith("@") and (key := usual[1:].replace("::", "#")) not in seen:
        seen.add(key)
        usual = parser.get(key)
    return usual
