"""Which values a key of a configuration takes."""

from __future__ import annotations

import json
import math
import os
from typing import Any

import torch

from ..errors import InputError
from .literals import Code, as_code

__all__ = ["MIGHT_BE", "check_value"]

#: By the last part of a key that has no value in the configurations: one that it might have.
MIGHT_BE: dict[str, Any] = {
    "bin_um": 16.0,
    "genes": ["ERBB2"],
    "max_units": 64,
    "pitch_um": 100.0,
    "postprocessing": {},
    "region_px": [0, 0, 2000, 2000],
    "sampler": {},
    "score_size_um": 100.0,
    "slide_mpp": 0.5,
    "spot_um": 55.0,
    "tile_px": 1024,
    "unit_sizes_um": [100.0],
}

#: By the last part of a key: what must be a whole number, and what must be above 0.
_WHOLE = {
    "batch_size",
    "crop_px",
    "crops_per_slide",
    "max_epochs",
    "max_units",
    "n_programs",
    "tile_px",
    "val_interval",
}

_POSITIVE = {*_WHOLE, "learning_rate", "mpp"}


def check_value(key: str, value: Any, usual: Any, source: str) -> None:
    """Refuse what is not of the kind that the configuration has there, or cannot be."""
    if isinstance(value, dict):
        for name, item in value.items():
            check_value(f"{key}#{name}", as_code(item), None, source)
    if key.endswith("#_target_") and not (isinstance(value, str) and value):
        raise InputError(f'{source}: "{key}" is {json.dumps(value)}; it must be the name of a class or function.')
    if isinstance(value, Code):
        return
    if usual is None:
        usual = MIGHT_BE.get(key.rpartition("#")[2])
        if value is None:
            return
    if key == "bin_um" and isinstance(value, (list, tuple)):
        for size in value:
            check_value(key, size, usual, source)
        return
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if isinstance(usual, (int, float)) and not isinstance(usual, bool) and not is_number:
        raise InputError(f'{source}: "{key}" is a number such as {usual}, not {json.dumps(value)}.')
    if isinstance(usual, list) and not isinstance(value, (list, tuple)):
        raise InputError(f'{source}: "{key}" is a list such as {json.dumps(usual)}, not {json.dumps(value)}.')
    if isinstance(usual, bool) and not isinstance(value, bool):
        raise InputError(f'{source}: "{key}" is true or false, not {json.dumps(value)}.')
    is_text = isinstance(value, (str, os.PathLike))
    if isinstance(usual, str) and not usual.startswith(("$", "@", "%")) and not is_text:
        raise InputError(
            f'{source}: "{key}" is text such as {json.dumps(usual)}, not {json.dumps(value)}. Quote a text that looks '
            f"like something else: '{key}=\"2024\"'."
        )
    if isinstance(usual, dict) and value is not None and not isinstance(value, dict):
        raise InputError(f'{source}: "{key}" holds keys and values of its own, not {json.dumps(value)}.')
    last = key.rpartition("#")[2]
    if is_number and not math.isfinite(value):
        raise InputError(f'{source}: "{key}" is {value}; it must be finite.')
    if last in _POSITIVE and is_number and not value > 0:
        raise InputError(f'{source}: "{key}" is {value}; it must be above 0.')
    if last in _WHOLE and is_number and value != int(value):
        raise InputError(f'{source}: "{key}" is {value}; it must be a whole number.')
    if key == "device" and isinstance(value, str):
        try:
            torch.empty(0, device=value)
        except Exception as error:
            reason = str(error).splitlines()[0].rstrip(".")
            raise InputError(f'{source}: there is no device "{value}" here ({reason}). Use cpu.') from error
