"""Reading a file of pretrained weights, without running code that might be in it."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Any

import torch

from .errors import missing_extra

__all__ = ["read_state"]

#: Names under which training scripts keep the state dict beside an optimizer's.
_WRAPPERS = ("model", "state_dict", "model_state_dict", "teacher")


def read_state(path: str | Path) -> dict[str, torch.Tensor]:
    """The state dict in a file, on the CPU.

    Args:
        path: `.safetensors`, or what `torch.save` wrote (`.pt`, `.pth`, `.bin`): a state dict, or one under the key
            `model`, `state_dict`, `model_state_dict` or `teacher`.

    Raises:
        ValueError: if there is no such file, or it holds anything but tensors by name.
        MissingExtraError: if it is `.safetensors` and that package is missing.
    """
    path = Path(path)
    if not path.is_file():
        raise ValueError(f"There is no file of weights at {path.absolute()}. Give the path of a state dict.")
    if path.suffix == ".safetensors":
        return _read_safetensors(path)
    try:
        if zipfile.is_zipfile(path):  # `torch.load` does not compare checksums
            with zipfile.ZipFile(path) as archive:
                damaged = archive.testzip()
            if damaged is not None:
                raise ValueError(f"the checksum of {damaged} does not fit: copy it again")
        content: Any = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # whatever a damaged or foreign file makes of itself
        reason = next(iter(str(error).splitlines()), type(error).__name__).rstrip(".")
        raise ValueError(
            f"{path} does not open as weights alone ({reason}). If it holds a whole model or a training state, save "
            "its state dict: torch.save(model.state_dict(), 'weights.pt')."
        ) from error
    for name in _WRAPPERS:
        if isinstance(content, dict) and isinstance(content.get(name), dict):
            content = content[name]
    if not isinstance(content, dict):
        raise ValueError(f"{path} holds a {type(content).__name__}, not tensors by name. Save a state dict.")
    return {str(name): value for name, value in content.items() if torch.is_tensor(value)}


def _read_safetensors(path: Path) -> dict[str, torch.Tensor]:
    try:
        from safetensors import SafetensorError
        from safetensors.torch import load_file
    except ImportError as error:
        raise missing_extra("A .safetensors file of weights", "backbone") from error
    try:
        return load_file(path)
    except SafetensorError as error:
        raise ValueError(f"{path} is cut short or no safetensors file ({error}). Copy it again.") from error
