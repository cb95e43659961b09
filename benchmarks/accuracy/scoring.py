"""Figures of a run, by the code of `pixnet audit`, and the resamples that paired intervals need."""

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

__all__ = ["figures_of", "load_slides", "read_predictions"]

FIGURES = (
    "PCC@F", "PCC@S", "PCC@M", "PCC@M_pooled", "PCC@M_residual", "PCC@M_hvg50", "MSE", "MAE",
    "ceiling@M", "ceiling@M_residual", "share_of_ceiling",
)  # fmt: skip
#: Marker genes of breast tissue, whose own PCC is kept.
GENES = ("ERBB2", "CD24", "EPCAM", "COL1A1", "IGKC")
DRAWS = 1000


def figures_of(
    predicted: Sequence[np.ndarray], slides: Sequence[Slide], panel: GenePanel, fold: str
) -> tuple[dict[str, Any], np.ndarray]:
    """Score predictions of whole slides.

    Args:
        predicted: y of the panel's genes for each slide's units, (U, G).
        slides: the slides, measured.
        panel: chosen on the training slides.
        fold: seeds the resamples, so that all methods of a fold are resampled alike and folds are not.

    Returns:
        The CSV's columns, and PCC@M of resampled blocks of units, to be paired with another method's of the same fold.
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
    of_gene = dict(zip(panel.panels[panel.main], pcc, strict=True))
    return {
        "units": native["units"],
        "genes": result["genes"],
        "panel": panel.main,
        **{key: native.get(key) for key in FIGURES},
        **{f"pcc_{gene}": float(of_gene[gene]) if gene in of_gene else None for gene in GENES},
    }, draws


def read_predictions(folder: Path, slides: Sequence[Slide], panel: GenePanel) -> list[np.ndarray]:
    """Predictions that an evaluation of ours wrote to `folder`, in the order of slides, units and the panel's genes."""
    found = []
    for slide in slides:
        adata = ad.read_h5ad(folder / f"{slide.name}.h5ad")
        assert slide.units is not None
        if list(adata.obs_names) != list(slide.units.barcodes):
            raise InputError(f"{folder / slide.name}.h5ad holds predictions of other units than are scored.")
        found.append(np.asarray(adata[:, panel.genes].X, dtype=np.float64))
    return found


def load_slides(records: Sequence[Mapping[str, Any]], panel: GenePanel) -> list[Slide]:
    """The measured slides of these records with the panel's genes."""
    return [load_slide(record, panel.genes, panel.min_total) for record in records]
