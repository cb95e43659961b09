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
    """Ignite handler: write all that a resumed run needs to one file after each epoch.

    The file appears in one move. MONAI's `CheckpointSaver` writes onto the final name, so that a run killed meanwhile
    would lose its checkpoint.

    Args:
        path: the file to write.
        objects: what to save besides the trainer: names and objects with a state dict. `LoadCheckpoint` reads them.
    """

    def __init__(self, path: str, objects: Mapping[str, Any]) -> None:
        self.path = Path(path)
        self.objects = dict(objects)

    def attach(self, engine: Engine) -> None:
        """Write at the end of each epoch. Attach this handler last: it saves what the others have changed."""
        engine.add_event_handler(Events.EPOCH_COMPLETED, self)

    def __call__(self, engine: Engine) -> None:
        """Write the states, the trainer's own included."""
        objects = {**self.objects, "trainer": engine}
        states = {name: getattr(item, "module", item).state_dict() for name, item in objects.items()}
        with replacing(self.path) as temporary:
            torch.save(states, temporary)

    @staticmethod
    def find(path: str) -> str | None:
        """`path` if a checkpoint is there, else None."""
        return path if Path(path).is_file() else None
