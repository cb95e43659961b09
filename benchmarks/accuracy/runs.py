"""A run: one recipe or baseline on one fold with one seed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from benchmarks.store import digest

from .folds import Fold

__all__ = ["TABLE", "Run"]

#: The CSV of these runs.
TABLE = "accuracy"
#: Raise when runs of the same settings would be scored or split differently.
PROTOCOL = 1


@dataclass(frozen=True)
class Run:
    """What to run; its key says whether it is finished.

    Attributes:
        stage: `screening` or `final`.
        method: the recipe's or the baseline's name.
        kind: `recipe` or `baseline`.
        fold: the held-out tissue.
        seed: of the training.
        settings: everything else that the figures depend on: configurations, budget, threads.
    """

    stage: str
    method: str
    kind: str
    fold: Fold
    seed: int
    settings: dict[str, Any]

    @property
    def key(self) -> str:
        """Hash of the settings, the sections and the seed."""
        training, scored = self.fold.split(self.stage)
        return digest([PROTOCOL, self.stage, self.method, _names(training), _names(scored), self.seed, self.settings])

    def row(self) -> dict[str, Any]:
        """The first columns of its line in the CSV; figures follow."""
        training, scored = self.fold.split(self.stage)
        patients = [{r["patient"] for r in records} for records in (training, scored)]
        return {
            "data": self.settings["data"],
            "stage": self.stage,
            "method": self.method,
            "kind": self.kind,
            "fold": self.fold.name,
            "seed": self.seed,
            "budget_min": self.settings.get("budget_min") if self.kind == "recipe" else None,
            "threads": self.settings.get("threads") if self.kind == "recipe" else None,
            "steps_asked": self.settings.get("steps"),
            "trained_on": " ".join(_names(training)),
            "scored_on": " ".join(_names(scored)),
            "same_patient": bool(patients[0] & patients[1]),
        }

    def made(self) -> dict[str, Any]:
        """Its part of the provenance; runs of one method compare where these are equal."""
        return {"settings": digest([PROTOCOL, self.settings])}


def _names(records: list[dict[str, Any]]) -> list[str]:
    return [r["section"] for r in records]
