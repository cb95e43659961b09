"""Names that earlier versions used, and how their configurations, weights and checkpoints are read today.

Whatever reads a configuration, weights or a checkpoint translates it here first, so that the rest of the code knows
today's names only. To rename something, add a line to a table below.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from typing import Any

__all__ = ["GONE", "REWIRED", "is_earlier", "today", "today_checkpoint", "today_key", "today_weights"]

#: Classes and functions.
_TARGETS = {
    "networks.PatchDictionaryEncoder": "networks.KMeansPatchEncoder",
    "networks.TextureExpert": "networks.RidgeBranch",
}
#: Arguments, by class.
_ARGUMENTS = {"networks.PixNet": {"texture": "ridge"}}
#: Keys of a configuration.
_KEYS = {
    "average": "ema",
    "bounded": "clip",
    "network_def#texture": "network_def#ridge",
    "sampler": "dataloader#sampler",
    "symmetries": "test_time_augmentation",
    "train#sampler": "train#dataloader#sampler",
    "validate#sampler": "validate#dataloader#sampler",
    "validate#writer": "best_model#writer",
}
#: Keys without a successor, and what to do instead.
GONE = {
    "checkpoint_handlers": "Add handlers with +train#handlers.",
    "kept_network": "Use $@ema.network.",
    "runtime": "PixNet computes maps with PyTorch; `pixnet export` writes the network as ONNX for other programs.",
    "texture_start": "PixNet fits the ridge branch unless it is fitted already. To train without it, set "
    "network_def#ridge=null.",
}
#: Parts of a training's configuration that only say how it is wired. They differ between versions.
REWIRED = {"best_model", "checkpoint", "ema", "imports", "train", "validate"}
#: Objects in a checkpoint.
_CHECKPOINT = {"average": "ema"}
#: Beginnings of the names of weights, after the prefix that an average adds.
_WEIGHTS = {"texture.": "ridge."}


def is_earlier(content: Mapping[str, Any]) -> bool:
    """Whether an earlier version wrote the merged configuration of a training."""
    return any(key in content for key in (*GONE, *_KEYS))


def today_key(key: str) -> str:
    """A key of a configuration, such as `network_def#ridge#rank`, under today's name."""
    for old, new in _KEYS.items():
        if key == old or key.startswith(f"{old}#"):
            return new + key.removeprefix(old)
    return key


def today(content: Any) -> Any:
    """A configuration, or a part of one, with today's classes and arguments."""
    if isinstance(content, list):
        return [today(item) for item in content]
    if not isinstance(content, dict):
        return content
    target = content.get("_target_")
    arguments = _ARGUMENTS.get(target, {}) if isinstance(target, str) else {}
    found = {arguments.get(key, key): today(value) for key, value in content.items()}
    if isinstance(target, str):
        found["_target_"] = _TARGETS.get(target, target)
    return found


def today_weights(state: Mapping[str, Any], expected: Collection[str]) -> dict[str, Any]:
    """A state dict under today's names.

    Args:
        state: as it was saved.
        expected: names of the parameters and buffers that it is loaded into. Only these are translated to.
    """
    return {_today_weight(name, expected): value for name, value in state.items()}


def _today_weight(name: str, expected: Collection[str]) -> str:
    for old, new in _WEIGHTS.items():
        found = re.sub(rf"^(module\.)?{re.escape(old)}", rf"\g<1>{new}", name)
        if name not in expected and found in expected:
            return found
    return name


def today_checkpoint(content: Mapping[str, Any], objects: Mapping[str, Any]) -> dict[str, Any]:
    """A training's checkpoint under today's names.

    Args:
        content: as it was saved: names and state dicts.
        objects: what it is loaded into, by today's names.
    """
    renamed = {_CHECKPOINT.get(name, name) if name not in objects else name: state for name, state in content.items()}
    return {
        name: today_weights(state, objects[name].state_dict())
        if name in objects and isinstance(state, Mapping) and all(isinstance(key, str) for key in state)
        else state
        for name, state in renamed.items()
    }
