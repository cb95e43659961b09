"""A bundle that is checked, and the outcomes of a check."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

__all__ = ["CannotPass", "NotRun", "Subject", "demand"]


class NotRun(Exception):
    """A check that was not made, and why."""


class CannotPass(Exception):
    """A check that fails for a known reason, which the model card states."""


@dataclass(frozen=True)
class Subject:
    """The bundle to check.

    Attributes:
        folder: the bundle.
        run: a run of its network.
        dataset: what the run was trained on.
        work: where checks may write.
    """

    folder: Path
    run: Path
    dataset: Path
    work: Path

    def read(self, name: str) -> dict[str, Any]:
        """A JSON file of its `configs`."""
        return json.loads((self.folder / "configs" / f"{name}.json").read_text())

    @property
    def weights(self) -> Path:
        """Its own weights, whether they are there or not."""
        return self.folder / "models" / "model.pt"

    def model(self) -> tuple[list[Path], dict[str, Any]]:
        """Configurations and keys that name a model: none where the bundle holds one, else those of the run."""
        if self.weights.is_file():
            return [], {}
        return [self.run / "configs" / "model.json"], {"model_dir": str(self.run / "models")}

    def slide(self) -> Path:
        """One of the slides."""
        return sorted((self.dataset / "slides").glob("*.tif"))[-1]


def demand(condition: bool, problem: str) -> None:
    """Fail a check unless a condition holds.

    Raises:
        ValueError: with the problem.
    """
    if not condition:
        raise ValueError(problem)
