"""Write and find the checkpoint that a stopped run resumes from."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from ignite.engine import Engine, Events

from ..files.atomic import replacing

__all__ = ["SaveCheckpoint"]


class SaveCheckpoint:
    """Write everything a resumed run needs to one file after each epoch, in one move.

    (MONAI's `CheckpointSaver` writes onto the final name, so that a run killed while writing has lost its checkpoint.)

    Args:
        path: the file; `find` tells whether it is there.
        objects: name to what has a state dict; read back by MONAI's `CheckpointLoader`.
    """

    def __init__(self, path: str, objects: Mapping[str, Any]) -> None:
        self.path = Path(path)
        self.objects = dict(objects)

    def attach(self, engine: Engine) -> None:
        """Write at the end of each epoch; attach it last."""
        engine.add_event_handler(Events.EPOCH_COMPLETED, self)

    def __call__(self, engine: Engine) -> None:
        """Write the states."""
        states = {name: getattr(item, "module", item).state_dict() for name, item in self.objects.items()}
        with replacing(self.path) as temporary:
            torch.save(states, temporary)

    @staticmethod
    def find(path: str) -> str | None:
        """`path` if a checkpoint is there, else None."""
        return path if Path(path).is_file() else None
