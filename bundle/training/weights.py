"""Read weights and checkpoints, and refuse damaged ones before anything is computed with them."""

from __future__ import annotations

import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from ignite.engine import Engine, Events

from ..config.earlier import today_checkpoint, today_weights
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
    weights = today_weights(weights, target.state_dict())
    try:
        target.load_state_dict(weights)
    except Exception as error:
        difference = _difference(weights, target.state_dict(), error)
        raise InputError(
            f"{path} does not hold the weights of this network: {difference}. Use model.pt and model.json of one run."
        ) from error
    return network


class LoadCheckpoint:
    """Ignite handler: load weights or a checkpoint when the engine starts.

    It differs from MONAI's `CheckpointLoader` in checking first that the file is whole and holds finite values, and in
    reading files of earlier versions.

    Args:
        load_path: `model.pt`, or a checkpoint that `SaveCheckpoint` wrote.
        load_dict: names and objects to load into. One network takes `model.pt`. Several objects take a checkpoint,
            which also restores the engine's own state.
        map_location: as in `torch.load`.
    """

    def __init__(self, load_path: str, load_dict: Mapping[str, Any], map_location: Any = "cpu") -> None:
        self.load_path = load_path
        self.load_dict = dict(load_dict)
        self.map_location = map_location

    def attach(self, engine: Engine) -> None:
        """Load when the engine starts."""
        engine.add_event_handler(Events.STARTED, self)

    def __call__(self, engine: Engine) -> None:
        """Load.

        Raises:
            InputError: if the file is damaged or does not fit what it is loaded into.
        """
        first = next(iter(self.load_dict.values()))
        if len(self.load_dict) == 1 and isinstance(first, torch.nn.Module):
            load_weights(first, self.load_path, self.map_location)
            return
        content = read_checkpoint(self.load_path, self.map_location)
        if not isinstance(content, Mapping):
            raise self._unusable("it holds no states by name")
        objects = {name: getattr(item, "module", item) for name, item in self.load_dict.items()} | {"trainer": engine}
        content = today_checkpoint(content, objects)
        if missing := [name for name in objects if name not in content]:
            raise self._unusable(f"it lacks {', '.join(missing)}")
        max_epochs = engine.state.max_epochs
        try:
            for name, item in objects.items():
                item.load_state_dict(content[name])
        except Exception as error:
            raise self._unusable(reason(error)) from error
        if max_epochs is not None and engine.state.epoch > max_epochs:
            raise self._unusable(f"it is of epoch {engine.state.epoch}, and max_epochs is {max_epochs}")
        engine.state.max_epochs = max_epochs

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
