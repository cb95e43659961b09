"""The provenance of a prediction: its genes and how far to trust them, the model, and warnings."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from ..data.normalisation import LARGE_UNIT_UM
from ..data.panel import GenePanel
from ..data.tissue import STAIN_FOREIGN, STAIN_LIMIT, STAIN_OWN, stain_distance
from ..data.units import is_interpolated
from ..files.reading import read_json, reading
from ..files.schemas import EVALUATION
from ..version import bundle_version
from .clipping import NOT_CLIPPED
from .express import Projection
from .prediction_dataset import UnitSet

__all__ = ["Provenance", "model_sha256"]

logger = logging.getLogger(__name__)


def model_sha256(path: str | Path) -> str:
    """Identify a model by the hash of its weights; empty where there are none."""
    path = Path(path)
    if not path.is_file():
        return ""
    state = path.stat()
    return _sha256(path.resolve(), state.st_size, state.st_mtime_ns)


@lru_cache(maxsize=8)
def _sha256(path: Path, size: int, mtime_ns: int) -> str:
    """The file is read once as long as its size and time stay."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@dataclass(frozen=True, eq=False)
class Provenance:
    """What a prediction's file says of the model.

    Attributes:
        panel: the genes and what was measured about them.
        mpp: working resolution.
        resolution_um: side of a map pixel.
        model_file: the weights, whose hash identifies the model.
        clip: whether X is clipped to its range.
    """

    panel: GenePanel
    mpp: float
    resolution_um: float
    model_file: Path
    clip: bool = True

    def describe(
        self,
        slide: Mapping[str, Any],
        unit_set: UnitSet,
        projection: Projection,
        names: list[str],
        factors: bool,
        left_out: Sequence[str] = (),
        with_X: bool = True,
    ) -> dict[str, Any]:
        """`var`, `varm` and `uns` of one file.

        Args:
            slide: a slide as `PredictionDataset` or `SlideDataset` gives it.
            unit_set: the file's units.
            projection: from features to genes.
            names: genes that the file holds.
            factors: the file holds features, from which any gene is computed.
            left_out: genes that the file lacks because they failed on the validation slides.
            with_X: whether the file holds values, not the features alone.
        """
        units, var = unit_set.units, self.trust(names)
        scalefactors = {"spot_diameter_fullres": units.size_um / slide["mpp"]}
        spatial: dict[str, Any] = {"scalefactors": scalefactors, "metadata": {"mpp": slide["mpp"]}, "images": {}}
        if slide.get("hires") is not None:
            spatial["images"]["hires"] = slide["hires"]
            scalefactors["tissue_hires_scalef"] = slide["hires_scale"]
        warnings = self._warnings(slide, unit_set, projection.has_rate, len(left_out), with_X)
        about: dict[str, Any] = {
            "unit_of_X": f"log1p of counts per 10,000 ({self.panel.transcriptome} transcriptome), predicted"
            + ("" if self.clip else NOT_CLIPPED),
            "slide_mpp": slide["mpp"],
            "working_mpp": self.mpp,
            "effective_resolution_um": self.resolution_um,
            "interpolated": is_interpolated(units.shape, units.size_um, self.resolution_um),
            "unit_shape": units.shape,
            "unit_size_um": units.size_um,
            "trained_on_um": list(self.panel.unit_sizes_um),
            "panel": self.panel.main,
            "panels": {name: np.array(genes, dtype=str) for name, genes in self.panel.panels.items()},
            "training_sections": np.array([t["section"] for t in self.panel.training], dtype=str),
            "training_patients": np.array(sorted({t["patient"] for t in self.panel.training}), dtype=str),
            "checkpoint_sha256": model_sha256(self.model_file),
            "version": bundle_version(),
            "genes_left_out": np.array(left_out, dtype=str),
            "warnings": np.array(warnings, dtype=str),
        }
        if np.isfinite(stain := self._stain(slide)):
            about["stain_distance"] = stain
        if "patient" in slide:
            about["same_patient"] = self.panel.shares_patients([slide])
        if "same_patient_val" in var:
            about["same_patient_val"] = bool(var["same_patient_val"].any())
        varm = {}
        if factors:
            about["projection"] = projection.to_dict()
            varm["loadings"] = projection.columns(names).loadings
        uns = {
            "pixnet": about,
            "spatial": {slide["section"]: spatial},
            "unit": {"shape": units.shape, "size_um": float(units.size_um), "kind": "prediction"},
        }
        return {"var": var, "varm": varm, "uns": uns}

    def trust(self, genes: Sequence[str]) -> pd.DataFrame:
        """How well the model predicted each gene on the validation slides; no columns where there were none."""
        table = self.model_file.parent.parent / "evaluation" / "validation_genes.csv"
        summary = table.with_name("validation.json")
        frame = pd.DataFrame(index=list(genes))
        if not table.is_file() or not summary.is_file():
            return frame
        about = read_json(summary, schema=EVALUATION)
        with reading(table, "cannot be read as the figures of each gene", "Evaluate the model again."):
            measured = pd.read_csv(table, keep_default_na=False, na_values=[""]).set_index("gene").reindex(list(genes))
            for source, target in (("pcc_native", "pcc_val"), ("ceiling_native", "ceiling_val")):
                frame[target] = measured[source].astype(float) if source in measured else np.nan
        frame["n_patients_val"] = int(about["patients"])
        frame["same_patient_val"] = bool(about["same_patient"])
        return frame

    def _stain(self, slide: Mapping[str, Any]) -> float:
        """See `stain_distance`; NaN where it is unknown."""
        return stain_distance(slide["stain"], self.panel.extra.get("stain", [])) if "stain" in slide else float("nan")

    def _warnings(
        self, slide: Mapping[str, Any], unit_set: UnitSet, has_rate: bool, n_left_out: int, with_X: bool
    ) -> list[str]:
        units = unit_set.units
        found = []
        if slide["mpp"] > self.mpp * 1.01:
            found.append(f"The slide has {slide['mpp']:.3g} µm per pixel, the model {self.mpp:.3g}: it was enlarged.")
        if is_interpolated(units.shape, units.size_um, self.resolution_um):
            found.append(
                f"{units.size_um:.4g} µm is finer than a pixel of the map ({self.resolution_um:g} µm): interpolated."
            )
        sizes = self.panel.unit_sizes_um
        if not has_rate and not any(np.isclose(units.size_um, s) for s in sizes):
            trained = ", ".join(f"{s:g}" for s in sizes)
            found.append(f"The linear head was trained on {trained} µm units; {units.size_um:g} µm is approximate.")
        if units.size_um < LARGE_UNIT_UM:
            found.append("Below 55 µm X is the logarithm of an expected rate, not of a count that could be measured.")
        stain = self._stain(slide)
        if stain > STAIN_LIMIT:
            found.append(
                f"The slide is stained unlike every training slide, {stain:.2g} from the nearest. Slides of one "
                f"laboratory lie within {STAIN_OWN:g}, H&E of other laboratories within {STAIN_FOREIGN:g}. Is it H&E?"
            )
        fraction = unit_set.tissue_fraction
        if fraction is not None and len(fraction) and float(np.mean(fraction > 0)) < 0.5:
            found.append("More than half of the units lie off the tissue that was found on the slide.")
        if n_left_out:
            found.append(
                f"{n_left_out} of {len(self.panel)} genes did not correlate positively with the measurement on the "
                "validation slides and are left out; all_genes=true writes them."
            )
        if not with_X:
            found.append(
                f"{len(units)} units x {len(self.panel)} genes are too many values to write: the file has no X but the "
                "features, from which expression_of computes any gene; --genes writes the genes it names."
            )
        found += unit_set.doubts
        for message in found:
            logger.warning("%s: %s", slide["section"], message)
        return [*slide.get("doubts", ()), *found]  # the log named the slide's own doubts when it was opened
