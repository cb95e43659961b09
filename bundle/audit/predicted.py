"""A prediction of any tool: read, checked, and brought to log1p CP10k."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import anndata as ad
import numpy as np
import scipy.sparse as sp

from ..data.normalisation import TARGET_SUM, log1p_cp10k
from ..data.section_identity import SectionIdentity, section_of
from ..errors import InputError
from ..files.anndata import read_anndata
from ..files.reading import reading
from ..metrics.score import Prediction

__all__ = ["UNITS_OF_X", "Predicted", "read_predicted"]

#: What X may hold: log1p of counts per 10,000, counts per 10,000, or counts.
UNITS_OF_X = ("log1p_cp10k", "cp10k", "counts")
_OURS = "log1p of counts per 10,000"
#: Rounding aside, no gene can have more than all of a unit's counts.
_LIMIT_CP10K = 1.01 * TARGET_SUM


@dataclass(frozen=True, eq=False)
class Predicted:
    """Predicted expression of units, as plain arrays.

    Attributes:
        name: where it came from, for messages.
        barcodes: names of the units, (U,).
        genes: names of the genes, (G,).
        y: log1p CP10k, (U, G).
        amount: what adds up over units (a rate, or counts), (U, G); None where the tool gives none.
        amount_total: the same of all genes, (U,).
        centers_px: centres (x, y), (U, 2), if the file has positions.
        size_um: size of the units, if stated.
        unit_of_x: one of `UNITS_OF_X`.
        coarser: how several units' prediction is made from theirs, in words.
        section: the slide, if the file names it.
        about: what PixNet says of its own predictions, `uns["pixnet"]`.
        standard_error: `layers["standard_error"]`, (U, G), in units of X; None where the file has none.
    """

    name: str
    barcodes: np.ndarray
    genes: np.ndarray
    y: np.ndarray
    amount: np.ndarray | None
    amount_total: np.ndarray | None
    centers_px: np.ndarray | None
    size_um: float | None
    unit_of_x: str
    coarser: str
    section: SectionIdentity | None = None
    about: Mapping[str, Any] = field(default_factory=dict)
    standard_error: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.barcodes)

    @property
    def panels(self) -> dict[str, list[str]]:
        """The model's named lists of genes, the headline's first; none where the file does not say them."""
        named = dict(self.about.get("panels", {}))
        first = self.about.get("panel")
        order = sorted(named, key=lambda name: name != first)  # HDF5 keeps no order
        return {str(name): [str(gene) for gene in named[name]] for name in order}

    def same_patient(self, patient: str | None) -> bool | None:
        """Whether the slide's patient was trained on; None where nothing says it."""
        if "same_patient" in self.about:
            return bool(self.about["same_patient"])
        trained = {str(name) for name in self.about.get("training_patients", ())}
        return None if patient is None or not trained else patient in trained or "unknown" in trained

    def columns(self, genes: Sequence[str]) -> np.ndarray:
        """Where `genes`, all of them predicted, stand."""
        column = {gene: i for i, gene in enumerate(self.genes)}
        return np.array([column[gene] for gene in genes])

    def for_groups(self, rows: np.ndarray, columns: np.ndarray) -> Prediction:
        """Predictions for groups of the units at `rows` and the genes at `columns`, as `score_slide` asks for them.

        A tool that predicts CP10k alone does not say how deep a unit is, so that its units count alike.
        """
        y = self.y[np.ix_(rows, columns)].astype(np.float64)
        if self.amount is None or self.amount_total is None:

            def predict_mean(groups: sp.csr_matrix) -> tuple[np.ndarray, None]:
                size = np.asarray(groups.sum(1)).reshape(-1, 1)
                mean = np.log1p(groups @ np.expm1(y) / size)
                return np.where(size == 1, groups @ y, mean).astype(self.y.dtype), None

            return predict_mean
        amount, whole = self.amount[np.ix_(rows, columns)].astype(np.float64), self.amount_total[rows]

        def predict_sum(groups: sp.csr_matrix) -> tuple[np.ndarray, np.ndarray]:
            size = np.asarray(groups.sum(1)).reshape(-1, 1)
            summed, total = groups @ amount, groups @ whole
            rest = np.maximum(total - summed.sum(1), 0)
            ys = np.where(size == 1, groups @ y, log1p_cp10k(summed, total))
            return ys.astype(self.y.dtype), np.column_stack([summed, rest])

        return predict_sum


def read_predicted(path: str | Path, unit_of_x: str | None = None, option: str = "--unit-of-x") -> Predicted:
    """Read the AnnData of a prediction.

    Args:
        path: the .h5ad.
        unit_of_x: one of `UNITS_OF_X`, for a file that does not say it of itself; log1p CP10k by default.
        option: the command's name of it, for messages.

    Raises:
        InputError: if it cannot be read, or X holds what a prediction in that unit cannot be.
    """
    path = Path(path)
    adata = _read(path)
    with reading(
        path, "cannot be read as a prediction", "Check what its layers, obs, obsm and uns hold, or write it again."
    ):
        return _predicted(adata, path, unit_of_x, option)


def _predicted(adata: ad.AnnData, path: Path, unit_of_x: str | None, option: str) -> Predicted:
    for what, names in (("unit names", adata.obs_names), ("gene names", adata.var_names)):
        if not names.is_unique:
            raise InputError(f"{path}: {names.duplicated().sum()} {what} occur twice; name each once.")
    unit = _unit_of_x(adata, path, unit_of_x, option)
    x = _dense(adata.X)
    _check(x, unit, path, option)
    amount, total, coarser = None, None, "log1p of the mean over a square's units of their predicted CP10k"
    if unit == "counts":
        amount, total, coarser = x, x.sum(1, dtype=np.float64), "predicted counts summed over a square's units"
        y = log1p_cp10k(x, total)
    else:
        y = np.log1p(x) if unit == "cp10k" else x
        if "rate_per_um2" in adata.layers:
            amount = _dense(adata.layers["rate_per_um2"])
            if not np.isfinite(amount).all() or (amount < 0).any():
                raise InputError(f'{path}: layers["rate_per_um2"] holds missing or negative rates; leave it out.')
            # The genes that were not written are part of the total: y says what share of it the written ones are.
            share = np.expm1(y.astype(np.float64)).sum(1) / TARGET_SUM
            written = amount.sum(1, dtype=np.float64)
            total = np.divide(written, share, out=written.copy(), where=share > 0)
            coarser = 'layers["rate_per_um2"] summed over a square\'s units'
    size = _entry(adata, "unit").get("size_um")
    return Predicted(
        path.name,
        adata.obs_names.to_numpy(dtype=str),
        adata.var_names.to_numpy(dtype=str),
        y,
        amount,
        total,
        _positions(adata),
        None if size is None else float(size),
        unit,
        coarser,
        section_of(adata.uns, path.name),
        _entry(adata, "pixnet"),
        _dense(adata.layers["standard_error"]) if "standard_error" in adata.layers else None,
    )


def _read(path: Path) -> ad.AnnData:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # names that occur twice are refused in a sentence
        adata = read_anndata(path, "Give the .h5ad of a prediction.", "Write the prediction as .h5ad.")
    if adata.X is None or not adata.n_obs or not adata.n_vars:
        raise InputError(f"{path} holds no prediction: X must be (units, genes).")
    return adata


def _entry(adata: ad.AnnData, key: str) -> dict[str, Any]:
    value = adata.uns.get(key)
    return dict(value) if hasattr(value, "keys") else {}


def _positions(adata: ad.AnnData) -> np.ndarray | None:
    centers = np.asarray(adata.obsm["spatial"]) if "spatial" in adata.obsm else None
    if centers is None or centers.ndim != 2 or centers.shape[1] < 2:
        return None
    centers = centers[:, :2].astype(np.float64)
    return centers if np.isfinite(centers).all() else None


def _dense(matrix: Any) -> np.ndarray:
    x = matrix.toarray() if sp.issparse(matrix) else np.asarray(matrix)
    return x.astype(np.float32) if x.dtype.kind in "biu" else x


def _unit_of_x(adata: ad.AnnData, path: Path, asked: str | None, option: str) -> str:
    if _entry(adata, "unit").get("kind") == "counts" and asked != "counts":
        raise InputError(
            f"{path} holds measured counts, not a prediction; the prediction comes first, the measured units second."
        )
    said = str(_entry(adata, "pixnet").get("unit_of_X", ""))
    stated = "log1p_cp10k" if said.startswith(_OURS) else said
    if not stated:
        return asked or UNITS_OF_X[0]
    if stated in UNITS_OF_X:
        return stated
    if asked is None:
        raise InputError(f'{path} says that X is "{said}"; say what it is with {option} {"|".join(UNITS_OF_X)}.')
    return asked


def _check(x: np.ndarray, unit: str, path: Path, option: str) -> None:
    if x.dtype.kind != "f":
        raise InputError(f"{path}: X holds no numbers.")
    missing = int((~np.isfinite(x)).sum())
    if missing:
        raise InputError(
            f"{path}: {missing:,} of the {x.size:,} values of X are missing or infinite; predict every unit and gene, "
            "or leave units out."
        )
    low, high = float(x.min()), float(x.max())
    if unit != "log1p_cp10k" and low < 0:
        raise InputError(
            f"{path}: X goes down to {low:.3g}, and {unit} cannot be negative. Clip it at 0, or say what it is with "
            f"{option}."
        )
    limit = {"log1p_cp10k": float(np.log1p(_LIMIT_CP10K)), "cp10k": _LIMIT_CP10K}.get(unit, np.inf)
    if high > limit:
        raise InputError(
            f"{path}: X goes up to {high:.4g}, and {unit} ends at {limit:.4g}, all of a unit's counts. Say what X is "
            f"with {option} {'|'.join(u for u in UNITS_OF_X if u != unit)}."
        )
