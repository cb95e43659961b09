"""Which values a key of a configuration takes."""

from __future__ import annotations

import json
import os
from typing import Any

import torch

from ..errors import InputError
from ..files.checking import check
from ..files.schemas import COUNT, MPP, POSITIVE
from .literals import Code, as_code

__all__ = ["check_value"]


def _or_null(schema: dict[str, Any]) -> dict[str, Any]:
    return {"anyOf": [schema, {"type": "null"}]}


def _such_as(kind: str, words: str, example: Any) -> dict[str, Any]:
    return {"type": kind, "description": f"{words} such as {json.dumps(example)}"}


_SIZE = {**POSITIVE, "description": "a number of µm above 0"}
_NUMBER_OR_CODE = {"anyOf": [{"type": "number"}, {"type": "string", "pattern": "^[$@%]"}]}
_PARTS = {"type": ["object", "null"], "description": "keys and values of its own"}
#: By the last part of a key. For other keys the value in the configurations says the type (`_like`).
_KEYS: dict[str, dict[str, Any]] = {
    "_target_": {"type": "string", "minLength": 1, "description": "the name of a class or function"},
    **dict.fromkeys(("batch_size", "crop_px", "crops_per_slide", "max_epochs", "n_programs", "val_interval"), COUNT),
    **dict.fromkeys(("max_units", "tile_px"), _or_null(COUNT)),
    **dict.fromkeys(("pitch_um", "score_size_um", "slide_mpp", "spot_um"), _or_null(_SIZE)),
    **dict.fromkeys(("postprocessing", "sampler"), _PARTS),
    "bin_um": {
        "anyOf": [{"type": "number"}, {"type": "null"}, {"type": "array", "items": _NUMBER_OR_CODE}],
        "description": "a number such as 16.0, or a list of such",
    },
    "genes": _or_null(_such_as("array", "a list", ["ERBB2"])),
    "learning_rate": POSITIVE,
    "mpp": MPP,
    "region_px": _or_null(_such_as("array", "a list", [0, 0, 2000, 2000])),
    "unit_sizes_um": _or_null(_such_as("array", "a list", [100.0])),
}


def check_value(key: str, value: Any, usual: Any, source: str) -> None:
    """Refuse what is not of the kind that the configuration has there, or cannot be.

    Args:
        key: where the value is, such as `train#trainer#max_epochs`.
        value: the value. `Code` can be anything.
        usual: what the configuration has there; None where that says nothing.
        source: the file or option that says it, for the sentence.

    Raises:
        InputError: that names the key and what it must be.
    """
    if isinstance(value, dict):
        for name, item in value.items():
            check_value(f"{key}#{name}", as_code(item), None, source)
    last = key.rpartition("#")[2]
    if isinstance(value, Code) or (value is None and usual is None and last != "_target_"):
        return
    plain = os.fspath(value) if isinstance(value, os.PathLike) else value
    check(plain, _KEYS.get(last) or _like(usual), source, key)
    if key == "device" and isinstance(value, str):
        _check_device(value, source)


def _like(usual: Any) -> dict[str, Any]:
    """The schema of what is of a value's kind; of any where the value is code or None."""
    if isinstance(usual, bool):
        return {"type": "boolean", "description": "true or false"}
    if isinstance(usual, (int, float)):
        return _such_as("number", "a number", usual)
    if isinstance(usual, list):
        return _such_as("array", "a list", usual)
    if isinstance(usual, dict):
        return _PARTS
    if isinstance(usual, str) and not usual.startswith(("$", "@", "%")):
        text = _such_as("string", "text", usual)
        return text | {"description": f"{text['description']}; quote a text that looks like something else: '\"2024\"'"}
    return {}


def _check_device(name: str, source: str) -> None:
    try:
        torch.empty(0, device=name)
    except Exception as error:
        reason = str(error).splitlines()[0].rstrip(".")
        raise InputError(f'{source}: there is no device "{name}" here ({reason}). Use cpu.') from error
