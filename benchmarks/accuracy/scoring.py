"""Figures of a cell, by the code of `pixnet audit`, and the resamples that paired intervals need."""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import anndata as ad
import numpy as np

from benchmarks.baselines import Slide, load_slide
from bundle.audit.scoring import MatchedSlide, given, score
from bundle.data.panel import GenePanel
from bundle.errors import InputError
from bundle.metrics.bootstrap import block_bootstrap, block_side, block_sums

__all__ = ["FIGURES", "figures_of", "read_predictions"]

#: Shown in tables, in this order.
FIGURES = (
    "PCC@F", "PCC@S", "PCC@M", "PCC@M_residual", "PCC@M_hvg50", "MSE", "MAE", "ceiling@M", "share_of_ceiling",
)  # fmt: skip
DRAWS = 1000


def figures_of(predicted: Sequence[np.ndarray], slides: Sequence[Slide], panel: GenePanel, fold: str) -> dict[str, Any]:
    """Score predictions of whole slides.

    Args:
        predicted: y of the panel's genes for each slide's units, (U, G).
        slides: the slides, measured.
        panel: chosen on the training slides.
        fold: seeds the resamples, so that all methods of a fold are resampled alike and folds are not.

    Returns:
        `units`, `genes`, `scores` (over slides), `draws` (PCC@M of resampled blocks of units, as text, to be paired
        with another method's of the same fold) and `pcc_of_genes` (as text).
    """
    patients = [str(s.record.get("patient", s.name)) for s in slides]
    panels = {name: panel.index(name) for name in panel.panels}
    matched = [
        MatchedSlide(s.name, patient, s.units, given(y), s.mpp, s.filtered_units)  # type: ignore[arg-type]
        for s, patient, y in zip(slides, patients, predicted, strict=True)
    ]
    result = score(matched, panel.genes, panels)
    main = panels[panel.main]
    sums = [
        block_sums(y[:, main], s.y[:, main], s.centers_um, block_side(s.centers_um))
        for y, s in zip(predicted, slides, strict=True)
    ]
    draws = block_bootstrap(sums, draws=DRAWS, seed=zlib.crc32(fold.encode()), patients=patients)
    native = result["scales"]["native"]
    pcc = result["per_gene"]["native"]["pcc"][main]
    return {
        "units": native["units"],
        "genes": result["genes"],
        "panel": panel.main,
        "scores": {key: native[key] for key in (*FIGURES, "PCC@M_pooled", "ceiling@M_residual") if key in native},
        "draws": " ".join(f"{value:.5f}" for value in draws),
        "pcc_of_genes": " ".join(
            f"{gene}:{value:.3f}" for gene, value in zip(panel.panels[panel.main], pcc, strict=True)
        ),
    }


def read_predictions(folder: Path, slides: Sequence[Slide], panel: GenePanel) -> list[np.ndarray]:
    """What an evaluation of ours left in `predictions/<name>`, in the order of slides, units and the panel's genes."""
    found = []
    for slide in slides:
        adata = ad.read_h5ad(folder / f"{slide.name}.h5ad")
        assert slide.units is not None
        if list(adata.obs_names) != list(slide.units.barcodes):
            raise InputError(f"{folder / slide.name}.h5ad answers for other units than are scored.")
        found.append(np.asarray(adata[:, panel.genes].X, dtype=np.float64))
    return found


def load_slides(records: Sequence[Mapping[str, Any]], panel: GenePanel) -> list[Slide]:
    """The measured slides of these records with the panel's genes."""
    return [load_slide(record, panel.genes, panel.min_total) for record in records]
