"""Merge configuration files and keys into one configuration; refuse keys that do not exist."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from copy import deepcopy
from pathlib import Path
from typing import Any

from monai.bundle import ConfigParser
from monai.bundle.utils import merge_kv

from ..errors import InputError, did_you_mean
from ..files.checking import check
from ..files.schemas import MODEL
from .config_file import ConfigFile, read_config
from .defaults import arguments_of
from .earlier import GONE, today, today_key
from .literals import as_code, escape
from .values import check_value
from .written import as_written

__all__ = ["merge_config"]

#: Keys that an override may add.
_MAY_ADD = {"finalize", "start_from"}


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
    plain, adds = key.replace("::", "#").lstrip("+"), key.startswith("+")
    value = today(value)
    if plain not in parser:
        if plain in GONE:
            if value is None:
                return
            raise InputError(f'{source}: the key "{plain}" of earlier versions is gone. {GONE[plain]}')
        plain = today_key(plain)
    parent, _, name = plain.rpartition("#")
    beside = parser.get(parent) if parent and parent in parser else parser.get()
    arguments = arguments_of(beside)
    if not plain or (plain not in parser and plain not in _MAY_ADD and name not in arguments):
        known = sorted(k for k in {*beside, *arguments} if not k.startswith("_")) if isinstance(beside, dict) else []
        where = f" in {parent}" if parent and parent in parser else ""
        hint = did_you_mean(plain.rpartition("#")[2], known) or f" Known{where}: {', '.join(known)}."
        raise InputError(f'{source}: there is no key "{plain}".{hint}')
    if value is not None or parser.get(plain) is not None:
        check_value(plain, value, _usual(parser, plain, arguments.get(name)), source)
    merge_kv(parser, f"+{plain}" if adds and plain in parser else plain, escape(value))


def _usual(parser: ConfigParser, key: str, default: Any) -> Any:
    """What the configuration has at a key, or where that refers to; without the key, its class's default."""
    if key not in parser:
        return (
            list(default)
            if isinstance(default, tuple)
            else default
            if isinstance(default, (bool, int, float))
            else None
        )
    usual, seen = parser.get(key), {key}
    while isinstance(usual, str) and usual.startswith("@") and (key := usual[1:].replace("::", "#")) not in seen:
        seen.add(key)
        usual = parser.get(key)
    return usual
