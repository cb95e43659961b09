"""A cell: one recipe or baseline on one fold with one seed, and the small JSON that it leaves."""

from __future__ import annotations

import hashlib
import json
import platform
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from bundle.config.root import bundle_root

from .folds import Fold

__all__ = ["RESULTS", "Cell", "digest", "provenance", "read_cells"]

RESULTS = Path("benchmarks/results/accuracy")
#: Raise when cells of the same settings would be scored or split differently.
PROTOCOL = 1


@dataclass(frozen=True)
class Cell:
    """What is asked; its hash says whether it was answered.

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
    def hash(self) -> str:
        """Of the settings, the sections and the seed."""
        training, scored = self.fold.split(self.stage)
        asked = [PROTOCOL, self.stage, self.method, _sections(training), _sections(scored), self.seed, self.settings]
        return digest(asked)

    def path(self, results: Path) -> Path:
        """Where its JSON lies."""
        name = self.method.replace(",", "").replace(" ", "_")
        return results / self.stage / f"{name}-{self.fold.name}-{self.seed}-{self.hash}.json"

    def about(self) -> dict[str, Any]:
        """What its JSON says of it beside the figures; cells of one method compare where their `settings` are equal."""
        training, scored = self.fold.split(self.stage)
        patients = [{r["patient"] for r in records} for records in (training, scored)]
        return {
            "data": self.settings["data"],
            "stage": self.stage,
            "method": self.method,
            "kind": self.kind,
            "fold": self.fold.name,
            "seed": self.seed,
            "hash": self.hash,
            "trained_on": _sections(training),
            "scored_on": _sections(scored),
            "same_patient": bool(patients[0] & patients[1]),
            "settings": digest([PROTOCOL, self.settings]),
            **{key: self.settings[key] for key in ("budget_min", "threads") if key in self.settings},
            **({"steps_asked": self.settings["steps"]} if "steps" in self.settings else {}),
        }


def digest(content: Any) -> str:
    """A short hash of JSON-like content."""
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:12]


def provenance() -> dict[str, Any]:
    """The code and the machine that a cell was made with."""
    git = ["git", "-C", str(bundle_root())]
    commit = subprocess.run([*git, "rev-parse", "--short=12", "HEAD"], capture_output=True, text=True).stdout.strip()
    changed = subprocess.run([*git, "status", "--porcelain", "-uno"], capture_output=True, text=True).stdout.strip()
    return {
        "commit": commit + (" with changes" if changed else ""),
        "base_config": digest(json.loads((bundle_root() / "configs" / "train.json").read_text())),
        "finished": time.strftime("%Y-%m-%dT%H:%M:%S"),
        "device": torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu",
        "versions": {"python": platform.python_version(), "torch": torch.__version__, "numpy": np.__version__},
    }


def read_cells(results: Path) -> Iterator[dict[str, Any]]:
    """All finished cells below a folder."""
    for path in sorted(results.glob("*/*.json")):
        yield json.loads(path.read_text())


def _sections(records: list[dict[str, Any]]) -> list[str]:
    return [r["section"] for r in records]
