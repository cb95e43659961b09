"""Keys of earlier versions, in configurations and commands, and what became of them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..errors import InputError

__all__ = ["RENAMED", "current_settings", "network_of"]

#: Keys of `inference.json` that have another name now.
RENAMED = {"bounded": "clip"}
#: What replaces a key that is gone.
_RUNTIME = (
    'There is no runtime "{}" any more: PixNet computes maps with PyTorch. Leave --runtime out; `pixnet export` writes '
    "the network as ONNX for other programs."
)


def current_settings(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Settings of a prediction under the names that `inference.json` has now.

    Raises:
        InputError: if they name a runtime other than PyTorch.
    """
    found = {RENAMED.get(key, key): value for key, value in settings.items()}
    if (runtime := found.pop("runtime", None)) not in (None, "torch"):
        raise InputError(_RUNTIME.format(runtime))
    return found


def network_of(network: Any, old: Mapping[str, Any]) -> Any:
    """The network that a writer was given, or whose method `project` it was given, as in earlier versions.

    Raises:
        TypeError: if neither is given, or a key is unknown.
    """
    unknown = set(old) - {"project", "rate", "stride", "bounded"}
    if unknown:
        raise TypeError(f"PredictionWriter has no parameter {', '.join(sorted(unknown))}.")
    found = getattr(old.get("project"), "__self__", None) if network is None else network
    if found is None:
        raise TypeError("PredictionWriter needs the network.")
    return found
