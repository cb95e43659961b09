"""The kinds of values that options take, and the options that several commands share."""

from __future__ import annotations

import argparse
import json
import math
from pathlib import Path
from typing import Any

from ..config.literals import as_code
from ..errors import InputError
from ..files.name_lists import read_names

__all__ = [
    "add_settings",
    "add_trust",
    "count",
    "fraction",
    "genes",
    "names",
    "numbers",
    "panels",
    "positive",
    "seed",
    "setting",
    "sizes",
    "whole",
    "zero_or_more",
]


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return math.nan


def positive(text: str) -> float:
    """A finite number above 0."""
    value = _number(text)
    if not 0 < value < math.inf:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number above 0")
    return value


def zero_or_more(text: str) -> float:
    """A finite number that is not negative."""
    value = _number(text)
    if not 0 <= value < math.inf:
        raise argparse.ArgumentTypeError(f"{text!r} is neither 0 nor a number above it")
    return value


def fraction(text: str) -> float:
    """A number from 0 to below 1."""
    value = _number(text)
    if not 0 <= value < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number from 0 to below 1")
    return value


def count(text: str) -> int:
    """A whole number above 0."""
    if not text.isdecimal() or int(text) == 0:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number above 0")
    return int(text)


def whole(text: str) -> int:
    """A whole number."""
    try:
        return int(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number") from None


def seed(text: str) -> int:
    """A whole number that is not negative."""
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number of 0 or more")
    return int(text)


def numbers(text: str) -> list[float]:
    """Numbers, separated by commas."""
    try:
        return [float(part) for part in text.split(",") if part]
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a list of numbers such as 200,400") from None


def sizes(text: str) -> list[float]:
    """Numbers above 0, separated by commas."""
    return [positive(part) for part in text.split(",") if part]


def names(text: str) -> list[str]:
    """Names, separated by commas, or a file of them."""
    try:
        is_file = Path(text).is_file()
    except OSError:  # a list too long to be the name of a file
        is_file = False
    if not is_file and "," not in text and ("/" in text or text.endswith((".txt", ".csv", ".tsv", ".json"))):
        raise argparse.ArgumentTypeError(f"there is no file {text}")
    if not is_file:
        return list(dict.fromkeys(name.strip() for name in text.split(",") if name.strip()))
    try:
        return read_names(text)
    except InputError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def genes(text: str) -> list[str]:
    """Names, or all genes of a run's `panel.json`."""
    return _panel(text).genes if Path(text).suffix == ".json" else names(text)


def panels(text: str) -> list[str] | dict[str, list[str]]:
    """Names, or the named panels of a run's `panel.json`."""
    return _panel(text).panels if Path(text).suffix == ".json" else names(text)


def _panel(text: str) -> Any:
    from ..data.panel import load_panel  # slow to import, and rarely needed

    try:
        return load_panel(text)
    except InputError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def setting(text: str) -> tuple[str, Any]:
    """`key=value`; a value that is not JSON is text."""
    key, sign, value = text.partition("=")
    if not sign or not key:
        raise argparse.ArgumentTypeError(f"{text!r} is not of the form key=value")
    try:
        return key, as_code(json.loads(value))
    except (json.JSONDecodeError, RecursionError):
        return key, as_code(value)


def add_settings(parser: argparse.ArgumentParser) -> None:
    """Add `--set`."""
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        type=setting,
        metavar="KEY=VALUE",
        dest="settings",
        help="change a key of the configuration; repeat it for several",
    )


def add_trust(parser: argparse.ArgumentParser) -> None:
    """Add `--trust`."""
    parser.add_argument(
        "--trust", action="store_true", help="let the run's model execute its own code: only if you trust its author"
    )
