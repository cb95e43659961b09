"""Which prediction belongs to which measured slide."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import pandas as pd

from ..errors import InputError
from ..files.reading import check_file, reading

__all__ = ["Pair", "read_pairs"]


@dataclass(frozen=True)
class Pair:
    """A prediction and the measurement to compare it with.

    Attributes:
        pred: AnnData of the prediction.
        truth: AnnData of the measured units.
        name: the slide's.
        patient: whose slide it is; None where unknown.
        against: AnnData of another tool's prediction, if two are to be compared.
    """

    pred: Path
    truth: Path
    name: str
    patient: str | None = None
    against: Path | None = None


def read_pairs(pred: str, truth: str | None = None, against: str | None = None) -> list[Pair]:
    """Pairs as people name them.

    Args:
        pred: a file, several separated by commas, or alone a CSV with columns `pred`, `truth` and, where known,
            `patient` and `slide`; its paths are relative to it.
        truth: as many files in the same order.
        against: as many of another tool's predictions, in the same order.

    Raises:
        InputError: if there are more of one than of the other, or the CSV has other columns.
    """
    if truth is None:
        if Path(pred).suffix.lower() != ".csv":
            raise InputError(f"{pred} has nothing to be compared with: give TRUTH.h5ad too, or a CSV of pred,truth.")
        return _with_others(_from_csv(Path(pred)), against)
    preds, truths = ([Path(part) for part in text.split(",") if part] for text in (pred, truth))
    if len(preds) != len(truths):
        raise InputError(
            f"{len(preds)} predictions and {len(truths)} measured files are named; name as many of each, in one order."
        )
    if not preds:
        raise InputError("No prediction is named; give PRED.h5ad and TRUTH.h5ad.")
    return _with_others(_named(preds, truths, [None] * len(preds), [None] * len(preds)), against)


def _with_others(pairs: list[Pair], against: str | None) -> list[Pair]:
    if against is None:
        return pairs
    others = [Path(part) for part in against.split(",") if part]
    if len(others) != len(pairs):
        raise InputError(
            f"{len(others)} predictions are named to stand against {len(pairs)}; name one for each slide, in the same "
            "order."
        )
    return [replace(pair, against=other) for pair, other in zip(pairs, others, strict=True)]


def _from_csv(path: Path) -> list[Pair]:
    check_file(path, "Give a CSV with a header pred,truth,patient.", may_be_empty=True)
    with reading(path, "cannot be read as CSV", "Save it comma-separated, in UTF-8."):
        table = pd.read_csv(path, dtype=str, skipinitialspace=True)
    missing = [column for column in ("pred", "truth") if column not in table]
    if missing:
        raise InputError(f'{path} has no column "{missing[0]}"; its first line must be pred,truth,patient.')
    if not len(table):
        raise InputError(f"{path} names no pair below its header.")
    for column in ("pred", "truth"):
        if table[column].isna().any():
            raise InputError(f'{path}, line {int(table[column].isna().argmax()) + 2}: "{column}" is empty.')
    optional = [
        [None if pd.isna(v) else str(v) for v in table[column]] if column in table else [None] * len(table)
        for column in ("patient", "slide")
    ]
    return _named([path.parent / p for p in table["pred"]], [path.parent / t for t in table["truth"]], *optional)


def _named(
    preds: Sequence[Path], truths: Sequence[Path], patients: Sequence[str | None], names: Sequence[str | None]
) -> list[Pair]:
    """Pairs called as asked, else by the measured file: its stem, or its whole path where that is not unique."""
    stems = [truth.stem for truth in truths]
    called = [
        name or (truth.stem if stems.count(truth.stem) == 1 else str(truth))
        for name, truth in zip(names, truths, strict=True)
    ]
    twice = next((name for name in called if called.count(name) > 1), None)
    if twice is not None:
        raise InputError(f"Two pairs are about slide {twice}; score each slide once.")
    same = [truth.resolve() for truth in truths]
    again = next((truth for truth, place in zip(truths, same, strict=True) if same.count(place) > 1), None)
    if again is not None:
        raise InputError(f"Two pairs compare with {again}; score each slide once.")
    return [Pair(*fields) for fields in zip(preds, truths, called, patients, strict=True)]
