"""Choose a gene panel on training slides, or go on with a trained model's."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import InputError
from .normalisation import LARGE_UNIT_UM, log1p_cp10k, passes_quality_control, pearson_residuals
from .panel import GenePanel, load_panel
from .slide_units import load_units
from .units import MIN_MEASURED, Units

__all__ = ["extend_panel", "fit_panel"]

logger = logging.getLogger(__name__)


def fit_panel(
    records: Sequence[Mapping[str, Any]],
    n_mean: int = 250,
    n_hvg: int = 50,
    min_total: float = 200.0,
    unit_sizes_um: Sequence[float] | None = None,
) -> GenePanel:
    """Choose the panel on training slides and measure its statistics there.

    Args:
        records: training records (see `bundle.data.manifest`).
        n_mean: genes with the highest mean log1p CP10k.
        n_hvg: genes with the highest variance of Pearson residuals, averaged over slides.
        min_total: units below this many counts are left out (55 µm and above).
        unit_sizes_um: unit sizes to use; the coarsest of each slide by default.

    Raises:
        InputError: if hardly a gene is shared by all training slides, or no unit has enough counts.
    """
    if not records:
        raise InputError('The data set has no training slides: list some under "training" in its dataset.json.')
    read = [load_units(record, unit_sizes_um) for record in records]
    measured = [units for found in read for units in found]
    for units in measured:
        units.check_counts()
    n_kept = [int(passes_quality_control(units, min_total).sum()) for units in measured]
    genes = _shared_genes(measured)
    if not any(n_kept):
        raise InputError(
            f"No training unit on tissue has {min_total:g} counts or more. Lower min_total, or check the counts."
        )
    _warn_of_small_bins(measured)
    # Large units decide; small ones cannot be normalised by their own total.
    teaching = [units for units, n in zip(measured, n_kept, strict=True) if n]
    deciding = [units for units in teaching if units.size_um >= LARGE_UNIT_UM] or teaching
    n_units, mean, square, variability = 0, *np.zeros((3, len(genes)))
    total_counts = total_area = 0.0
    for everything in deciding:
        units = everything.take(passes_quality_control(everything, min_total))
        counts = units.counts_of(genes)
        y = log1p_cp10k(counts, units.total).astype(np.float64)
        n_units, mean, square = n_units + len(units), mean + y.sum(0), square + (y * y).sum(0)
        variability += pearson_residuals(counts, units.total).var(0)
        total_counts += float(units.total.sum())
        total_area += len(units) * units.area_um2
    mean /= n_units
    std = np.sqrt(np.maximum(square / n_units - mean**2, 0))
    by_mean = np.argsort(-mean, kind="stable")[: min(n_mean, len(genes))]
    by_variability = np.argsort(-variability, kind="stable")[: min(n_hvg, len(genes))]
    union = list(dict.fromkeys([*by_mean, *by_variability]))
    panel = GenePanel(
        genes=[genes[i] for i in union],
        panels={
            f"mean{n_mean}": [genes[i] for i in by_mean],
            f"hvg{n_hvg}": [genes[i] for i in by_variability],
        },
        mean=[float(mean[i]) for i in union],
        std=[float(max(std[i], 1e-3)) for i in union],
        depth_per_um2=total_counts / total_area,
        unit_sizes_um=sorted({units.size_um for units in measured}),
        min_total=float(min_total),
        training=[_about(r) for r in records],
        split_by=str(records[0].get("split_by", "patient")),
        transcriptome=str(records[0].get("transcriptome", "whole")),
    )
    for record, found in zip(records, read, strict=True):
        panel.keep_units(record, unit_sizes_um, found)
    panel._fitted_on = deciding
    return panel


def _shared_genes(measured: Sequence[Units]) -> list[str]:
    """The genes that all training slides measured, in the first one's order."""
    genes = [str(g) for g in measured[0].genes]
    for units in measured[1:]:
        present = set(units.genes)
        genes = [g for g in genes if g in present]
    fewest, most = (choose(measured, key=lambda units: len(units.genes)) for choose in (min, max))
    if len(genes) < MIN_MEASURED * len(fewest.genes) or not genes:
        names = ", ".join(u.name for u in measured[:3])
        shared = f"Only {len(genes)} of the {len(fewest.genes)} genes of {fewest.name} are" if genes else "No gene is"
        raise InputError(f"{shared} shared by all training slides ({names}, ...). Do all use symbols, or all ids?")
    if len(genes) < len(most.genes):
        logger.info(
            "PixNet learns from the %d genes that all training slides measured; %s has %d, %s %d.",
            len(genes),
            most.name,
            len(most.genes),
            fewest.name,
            len(fewest.genes),
        )
    return genes


def _warn_of_small_bins(measured: Sequence[Units]) -> None:
    coarsest = max(u.size_um for u in measured)
    if coarsest < LARGE_UNIT_UM and all(u.shape == "square" and u.mpp for u in measured):
        enough = math.ceil(LARGE_UNIT_UM / coarsest) * coarsest
        logger.warning(
            "Bins of %g µm alone hold little but noise. unit_sizes_um=[%g] trains on larger squares that PixNet bins "
            "from them; any size can be predicted all the same.",
            coarsest,
            enough,
        )


def extend_panel(
    path: str | Path, records: Sequence[Mapping[str, Any]], unit_sizes_um: Sequence[float] | None = None
) -> GenePanel:
    """A trained model's panel for training that goes on with its weights: same genes and statistics, further slides.

    Slides that measured some of the genes alone teach those.

    Args:
        path: the model's `panel.json`.
        records: the training records that are added.
        unit_sizes_um: see `fit_panel`.

    Raises:
        InputError: if there are no records, or their units lack most genes of the panel.
    """
    if not records:
        raise InputError("There are no training slides to go on with.")
    panel = load_panel(path)
    for record in records:
        found = load_units(record, unit_sizes_um)
        panel.keep_units(record, unit_sizes_um, found)
        for units in found:
            units.check_counts()
            units.check_panel(panel.genes, "learns")
            panel.unit_sizes_um = sorted({*panel.unit_sizes_um, units.size_um})
        slide = _about(record)
        panel.training += [] if slide in panel.training else [slide]
    return panel


def _about(record: Mapping[str, Any]) -> dict[str, str]:
    """What a panel says of a training slide."""
    return {"section": str(record.get("section", record["image"])), "patient": str(record.get("patient", "unknown"))}
