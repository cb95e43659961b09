"""Reading weights and checkpoints: damage, and what is no weights, is found before anything is computed with it."""

from __future__ import annotations

import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from ignite.engine import Engine
from monai.handlers import CheckpointLoader

from ..errors import InputError, reason

__all__ = ["LoadCheckpoint", "check_archive", "load_weights", "read_checkpoint", "read_weights"]


def check_archive(path: str | Path) -> None:
    """Compare the checksums that `torch.save` wrote with what the file holds; `torch.load` does not.

    Raises:
        InputError: if it is no file of weights, is cut short, or any part is damaged.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(f"No such file: {path}. Give the weights that training wrote.")
    if not zipfile.is_zipfile(path):
        raise InputError(f"{path} is cut short or holds no weights. Copy it again.")
    try:
        with zipfile.ZipFile(path) as archive:
            damaged = archive.testzip()
    except Exception as error:  # whatever a damaged archive makes of itself
        raise InputError(f"{path} is damaged ({reason(error)}). Copy it again.") from error
    if damaged is not None:
        raise InputError(f"{path} is damaged: the checksum of {damaged} does not fit. Copy it again.")


def read_checkpoint(path: str | Path, map_location: Any = "cpu") -> Any:
    """What `torch.save` wrote, as data alone: tensors, numbers and text in containers, all tensors finite.

    Raises:
        InputError: if it is damaged, holds code or another object, or a value that is not finite.
    """
    check_archive(path)
    try:
        content = torch.load(path, map_location=map_location, weights_only=True)
    except Exception as error:  # the file is whole, so it holds something else
        raise InputError(
            f"{path} does not open as weights alone ({reason(error)}). PixNet reads a state dict, as "
            "torch.save(network.state_dict(), PATH) writes it."
        ) from error
    for name, tensor in _tensors(content):
        if not bool(torch.isfinite(tensor).all()):
            raise InputError(
                f"{path}: {name} holds values that are not finite. The training diverged, or the file is damaged: copy "
                "it again, or train again with a lower learning_rate."
            )
    return content


def read_weights(path: str | Path, map_location: Any = "cpu") -> dict[str, torch.Tensor]:
    """A flat state dict of finite tensors.

    Raises:
        InputError: if the file is damaged or holds anything else.
    """
    content = read_checkpoint(path, map_location)
    if not isinstance(content, Mapping) or not all(
        isinstance(name, str) and torch.is_tensor(value) for name, value in content.items()
    ):
        raise InputError(
            f"{path} holds no weights: it must map the names of parameters to tensors, and to nothing else."
        )
    return dict(content)


def load_weights(network: torch.nn.Module, path: str | Path, map_location: Any = "cpu") -> torch.nn.Module:
    """Load weights into the network that they were trained in, and return it.

    Args:
        network: within a distributed wrapper or not.
        path: the run's `models/model.pt`.
        map_location: see `torch.load`.

    Raises:
        InputError: if the file is damaged, or holds other parameters than the network's.
    """
    weights, target = read_weights(path, map_location), getattr(network, "module", network)
    try:
        target.load_state_dict(weights)
    except Exception as error:
        difference = _difference(weights, target.state_dict(), error)
        raise InputError(
            f"{path} does not hold the weights of this network: {difference}. Use model.pt and model.json of one run."
        ) from error
    return network


class LoadCheckpoint(CheckpointLoader):
    """MONAI's `CheckpointLoader`, which first checks that the file is whole and holds finite values.

    It loads weights (`model.pt`, into one network) or a checkpoint (into all that it was made of).
    """

    def __call__(self, engine: Engine) -> None:
        """Load when the engine starts.

        Raises:
            InputError: if the file is damaged or does not fit what it is loaded into.
        """
        names = list(self.load_dict)
        if len(names) == 1 and isinstance(self.load_dict[names[0]], torch.nn.Module):
            load_weights(self.load_dict[names[0]], self.load_path, self.map_location)
            return
        content = read_checkpoint(self.load_path, self.map_location)
        missing = [name for name in names if not isinstance(content, Mapping) or name not in content]
        if missing:
            raise self._unusable(f"it lacks {', '.join(missing)}")
        try:
            super().__call__(engine)
        except Exception as error:
            raise self._unusable(reason(error)) from error

    def _unusable(self, why: str) -> InputError:
        return InputError(
            f"Training cannot go on from {self.load_path} ({why}). Remove that file to start the run anew, or choose "
            "another run folder."
        )


def _tensors(content: Any, name: str = "") -> Iterator[tuple[str, torch.Tensor]]:
    """The floating-point tensors in nested containers, by their path."""
    if torch.is_tensor(content):
        if content.is_floating_point():
            yield name or "it", content
    elif isinstance(content, Mapping):
        for key, value in content.items():
            yield from _tensors(value, f"{name}.{key}" if name else str(key))
    elif isinstance(content, (list, tuple)):
        for number, value in enumerate(content):
            yield from _tensors(value, f"{name}.{number}" if name else str(number))


def _difference(found: Mapping[str, torch.Tensor], own: Mapping[str, torch.Tensor], error: Exception) -> str:
    """The first way in which two sets of parameters differ, in words."""
    for name, tensor in own.items():
        if name not in found:
            return f"it lacks {name}"
        if found[name].shape != tensor.shape:
            return f"{name} has shape {tuple(found[name].shape)}, the network's has {tuple(tensor.shape)}"
    extra = next((name for name in found if name not in own), None)
    return reason(error) if extra is None else f"it holds {extra}, which the network lacks"
