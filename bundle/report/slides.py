"""Measured and predicted values of a few genes on one slide, for the maps."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import scipy.sparse as sp
import torch
from anndata.io import read_elem

from ..data.normalisation import TARGET_SUM
from ..data.section_identity import as_uint8
from ..data.slide_units import load_units
from ..data.units import Units
from ..errors import InputError
from ..metrics.moments import correlation, moments
from ..metrics.score import Prediction, compare_units

__all__ = ["SlideMaps", "read_picture", "read_slide_maps"]


@dataclass(frozen=True)
class SlideMaps:
    """What was measured and predicted on the units of one slide that were scored.

    Attributes:
        units: the scored units, without the ones that were filtered.
        mpp: µm per level-0 pixel.
        quantity: what the values are: `log1p CP10k`, or `log1p counts` below 55 µm.
        measured, predicted: per gene, (U,).
    """

    units: Units
    mpp: float
    quantity: str
    measured: dict[str, np.ndarray]
    predicted: dict[str, np.ndarray]

    def pcc(self, gene: str) -> float:
        """Correlation over this slide's units; 0 where only the prediction is constant, as the figures have it."""
        columns = (torch.from_numpy(of[gene][:, None]) for of in (self.predicted, self.measured))
        return float(correlation(moments(*columns))[0])


def read_slide_maps(record: Mapping[str, Any], prediction: Path, size_um: float, genes: Sequence[str]) -> SlideMaps:
    """Read the units that were scored and what was predicted for them.

    Args:
        record: of the slide, from `bundle.data.manifest.read_split`.
        prediction: the AnnData that the evaluation wrote.
        size_um: size of the scored units.
        genes: which genes.

    Raises:
        InputError: if a file is missing, cannot be read, or the two are not about the same units.
    """
    if not prediction.is_file():
        raise InputError(f"its prediction {prediction.parent.name}/{prediction.name} is not in the run folder.")
    (units,) = load_units(record, [size_um])
    try:
        names, y, rate, mpp = _read_prediction(prediction, genes)
    except (OSError, KeyError, ValueError) as error:
        raise InputError(f"{prediction} cannot be read ({error}). Write it again with `pixnet evaluate`.") from error
    place = {barcode: row for row, barcode in enumerate(units.barcodes)}
    known = np.array([name in place for name in names], bool)
    if not known.any():
        raise InputError(f"{prediction} names none of the units of {units.name}; evaluate the run again.")
    units = units.take(np.array([place[name] for name in names[known]]))
    y, rate = y[known], None if rate is None else rate[known]
    compared = compare_units(_given(y, rate), units, genes)
    mpp = mpp or units.mpp or float(record.get("mpp") or 0)
    if not mpp:
        raise InputError(f"neither {prediction.name} nor {units.name} says how many µm a pixel has.")
    return SlideMaps(
        units,
        mpp,
        {"log1p_counts": "log1p counts", "log1p_cp10k": "log1p CP10k"}[compared.target],
        {gene: compared.truth[:, i] for i, gene in enumerate(genes)},
        {gene: compared.prediction[:, i] for i, gene in enumerate(genes)},
    )


def read_picture(labels: Sequence[str]) -> tuple[np.ndarray, float] | None:
    """The first picture of the slide among files of units: uint8 (h, w, 3) and its pixels per level-0 pixel."""
    for label in labels:
        with h5py.File(label) as file:
            for section in file.get("uns/spatial", {}).values():
                if not isinstance(section, h5py.Group):  # CELLxGENE keeps a flag among them
                    continue
                hires = section.get("images/hires")
                scale = section.get("scalefactors/tissue_hires_scalef")
                if hires is not None and scale is not None:
                    return as_uint8(hires[..., :3]), float(scale[()])
    return None


def _read_prediction(path: Path, genes: Sequence[str]) -> tuple[np.ndarray, np.ndarray, np.ndarray | None, float]:
    """Names of the units, their y and rates of `genes` alone, and the slide's mpp (0 where unstated)."""
    with h5py.File(path) as file:
        names = read_elem(file["obs"]).index.to_numpy(dtype=str)
        column = {gene: i for i, gene in enumerate(read_elem(file["var"]).index)}
        rates = file.get("layers/rate_per_um2")
        unknown = [gene for gene in genes if gene not in column]
        if unknown:
            raise ValueError(f"it has no gene {unknown[0]}")
        y = np.stack([file["X"][:, column[g]] for g in genes], 1)
        rate = None if rates is None else np.stack([rates[:, column[g]] for g in genes], 1)
        mpp = file.get("uns/pixnet/slide_mpp")
        return names, y, rate, 0.0 if mpp is None else float(mpp[()])


def _given(y: np.ndarray, rate: np.ndarray | None) -> Prediction:
    """The prediction as it is scored: log1p CP10k and, where the head gives rates, those of all other genes last."""
    rates = None
    if rate is not None:  # log1p CP10k says what share of the whole rate the shown genes have
        share = np.maximum(np.expm1(y.astype(np.float64)).sum(1) / TARGET_SUM, 1e-12)
        rates = np.column_stack([rate, np.maximum(rate.sum(1) / share - rate.sum(1), 0)])

    def predict(groups: sp.csr_matrix) -> tuple[np.ndarray, np.ndarray | None]:
        return groups @ y, None if rates is None else groups @ rates

    return predict
