"""What a run folder holds, read for the report; only an evaluation must be there."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from ..config.literals import unescape
from ..data.manifest import SPLITS
from ..errors import InputError
from ..files.checking import check
from ..files.reading import read_json, reading
from ..files.schemas import REPORTED

__all__ = ["Evaluation", "Run", "read_run"]


@dataclass(frozen=True)
class Evaluation:
    """One `evaluation/<name>.json` with its table of genes.

    Attributes:
        name: the file's.
        about: split, patients, data set, ... as written; undefined figures are NaN.
        genes: the rows of `<name>_genes.csv`; empty where that is missing.
        predictions: the folder that holds `<section>.h5ad`.
    """

    name: str
    about: dict[str, Any]
    genes: pd.DataFrame
    predictions: Path

    @property
    def is_split(self) -> bool:
        """Whether it was named after a split, and not after what else was scored (`truth`)."""
        return self.name in SPLITS

    @property
    def panel(self) -> str:
        """Name of the panel that the figures are about."""
        return str(self.about["panel"])

    @property
    def scales(self) -> dict[str, dict[str, Any]]:
        """Figures per scale, the units' own first."""
        return self.about["scales"]

    @property
    def main(self) -> dict[str, Any]:
        """Figures at the units' own scale."""
        return next(iter(self.scales.values()))

    def column(self, figure: str) -> pd.Series:
        """A figure of each gene at the units' own scale, NaN where it was not written; indexed by gene."""
        values = self.genes.get(f"{figure}_{next(iter(self.scales))}", pd.Series(float("nan"), index=self.genes.index))
        return pd.Series(values.to_numpy(float), index=self.genes.get("gene", pd.Series(dtype=str)).astype(str))


@dataclass(frozen=True)
class Run:
    """A run folder; `panel`, `config` and `metrics` are empty where their files are missing."""

    folder: Path
    evaluations: list[Evaluation]
    panel: dict[str, Any]
    config: dict[str, Any]
    metrics: pd.DataFrame


def read_run(folder: str | Path) -> Run:
    """Read a run folder; evaluations come with `test` first and the other splits last.

    Raises:
        InputError: if there is no such folder, nothing in it was evaluated, or a file is malformed.
    """
    folder = Path(folder).resolve()
    if not folder.is_dir():
        raise InputError(f"No run at {folder}. Give the folder that `pixnet train` wrote.")
    evaluations = []
    for path in (folder / "evaluation").glob("*.json"):
        about = _read_json(path)
        if about.get("scales"):
            check(about, REPORTED, str(path))
            about = _undefined_to_nan(about)
            genes = _read_csv(path.with_name(f"{path.stem}_genes.csv"))
            evaluations.append(Evaluation(path.stem, about, genes, folder / "predictions" / path.stem))
    if not evaluations:
        raise InputError(f"{folder} has nothing to report yet: run `pixnet evaluate {folder}` first.")
    evaluations.sort(key=lambda e: (e.name != "test", e.is_split, e.name))
    return Run(
        folder,
        evaluations,
        _read_json(folder / "models" / "panel.json"),
        {key: unescape(value) for key, value in _read_json(folder / "configs" / "train.json").items()},
        _read_csv(folder / "metrics.csv"),
    )


def _read_json(path: Path) -> dict[str, Any]:
    if not path.is_file():
        return {}
    content = read_json(path, "Write it again.")
    return content if isinstance(content, dict) else {}


def _read_csv(path: Path) -> pd.DataFrame:
    if not path.is_file():
        return pd.DataFrame()
    with reading(path, "is not a table of comma-separated values", "Write it again."):
        # A gene may be called NA, and is not a missing value.
        return pd.read_csv(path, dtype={"gene": str}, keep_default_na=False, na_values=[""])


def _undefined_to_nan(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _undefined_to_nan(item) for key, item in value.items()}
    return float("nan") if value is None else value
