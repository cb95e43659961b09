"""Prediction of slides: what is asked for each, and the AnnData that answers."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import anndata as ad
import numpy as np
import pandas as pd
import torch
from ignite.engine import Engine, Events
from monai.utils import CommonKeys
from torch.utils.data import Dataset

from ..crops import SlideOpener, slide_units
from ..errors import InputError
from ..expression import LARGE_UNIT_UM
from ..files import replacing
from ..manifest import slide_name
from ..panel import GenePanel
from ..tissue import TissueMap, stain_unlike, tissue_fraction
from ..units import Units, build_units, is_interpolated
from .grids import UnitGrid

__all__ = ["PredictionDataset", "PredictionWriter", "unit_grid"]

logger = logging.getLogger(__name__)
_HIRES_MAX_PX = 2000


def unit_grid(
    spot_um: float | None = None,
    pitch_um: float | None = None,
    lattice: str = "square",
    bin_um: float | None = None,
) -> UnitGrid | None:
    """The arrangement of units asked for, or None where each slide brings its own.

    Raises:
        InputError: if spots and bins are asked for at once, or an arrangement is incomplete.
    """
    if bin_um is not None:
        if spot_um is not None or pitch_um is not None:
            raise InputError("Ask for bins or for spots, not both: give --bin-um, or --spot-um with --pitch-um.")
        return UnitGrid("square", float(bin_um), float(bin_um))
    if spot_um is None:
        if pitch_um is not None:
            raise InputError("A pitch alone says nothing about the spots: give --spot-um too.")
        return None
    return UnitGrid("circle", float(spot_um), float(spot_um if pitch_um is None else pitch_um), lattice)  # type: ignore[arg-type]


class PredictionDataset(Dataset):
    """Slides with the units to predict: those of a file, or a grid over the tissue.

    Args:
        data: records `{"image": path, "mpp": .., "label": units' .h5ad}`; `mpp` and `label` may be absent.
        reader: opens slides.
        tissue: from a picture, uint8 (3, h, w), and its mpp to a tissue mask, bool (1, h, w).
        grid: the arrangement of units where a record brings none.
    """

    def __init__(
        self,
        data: Sequence[Mapping[str, Any]],
        reader: SlideOpener,
        tissue: Callable[[np.ndarray, float], Any],
        grid: UnitGrid | None = None,
    ) -> None:
        self.data = list(data)
        self.reader = reader
        self.tissue = tissue
        self.grid = grid

    def __len__(self) -> int:
        return len(self.data)

    def __getitem__(self, item: int) -> dict[str, Any]:
        record = self.data[item]
        slide = self.reader.open(record["image"], record.get("mpp"))
        tissue = TissueMap(slide, self.tissue)
        if self.grid is not None:
            units = self.grid.over(tissue, slide.mpp, slide_name(record))
        elif record.get("label"):
            (units,) = slide_units(record, slide)
        else:
            raise InputError(
                f"{record['image']}: which units? Give --spots FILE.h5ad, --spot-um D --pitch-um P, or --bin-um B."
            )
        fraction = tissue_fraction(tissue, units.centers_px * slide.mpp, units.shape, units.size_um)
        hires, hires_mpp = slide.thumbnail(_HIRES_MAX_PX)
        return {
            **record,
            "section": slide_name(record),
            "mpp": slide.mpp,
            "units": units,
            "tissue_fraction": fraction,
            "stain": tissue.stain,
            "hires": hires,
            "hires_scale": slide.mpp / hires_mpp,
        }


class PredictionWriter:
    """Write each slide's prediction as AnnData as soon as it is done.

    Args:
        output: the file (`.h5ad`) for a single slide, or the folder that gets `<slide>.h5ad`.
        panel: the genes and what was measured about them.
        project: pooled features to y.
        rate: pooled features to rates per µm², or None.
        stride: working pixels per map pixel.
        mpp: working resolution.
        model_file: the weights, whose hash identifies the model.
        genes: write these alone; all by default.
    """

    def __init__(
        self,
        output: str,
        panel: GenePanel,
        project: Callable[[torch.Tensor], torch.Tensor],
        rate: Callable[[torch.Tensor], torch.Tensor | None],
        stride: int,
        mpp: float,
        model_file: str,
        genes: Sequence[str] | None = None,
    ) -> None:
        self.output = Path(output)
        self.panel = panel
        self.project = project
        self.rate = rate
        self.effective_resolution_um = float(stride * mpp)
        self.mpp = float(mpp)
        self.model_file = Path(model_file)
        self.genes = list(panel.genes) if genes is None else list(dict.fromkeys(genes))
        if not self.genes:
            raise InputError("No gene is asked for: name some, or leave genes out to have all.")
        unknown = [g for g in self.genes if g not in set(panel.genes)]
        if unknown:
            raise InputError(
                f"The model does not predict {', '.join(unknown[:5])}; its {len(panel)} genes are listed in panel.json."
            )

    def attach(self, engine: Engine) -> None:
        """Write at the end of each iteration, that is of each slide."""
        engine.add_event_handler(Events.ITERATION_COMPLETED, self)

    def __call__(self, engine: Engine) -> None:
        """Write one slide."""
        output: Any = engine.state.output
        slide, pooled = output[CommonKeys.IMAGE], output[CommonKeys.PRED]
        path = self.output if self.output.suffix == ".h5ad" else self.output / f"{slide['section']}.h5ad"
        adata = self.answer(slide, pooled)
        with replacing(path) as temporary:
            adata.write_h5ad(temporary, compression="lzf")
        logger.info("%s: %d units x %d genes written to %s", slide["section"], adata.n_obs, adata.n_vars, path)

    @torch.no_grad()
    def answer(self, slide: Mapping[str, Any], pooled: torch.Tensor) -> ad.AnnData:
        """The AnnData of one slide's prediction."""
        units: Units = slide["units"]
        place = {g: i for i, g in enumerate(self.panel.genes)}
        column = [place[g] for g in self.genes]
        values = np.empty((len(units), len(column)), np.float32)
        rates: np.ndarray | None = None
        for start in range(0, len(units), 65536):
            part = slice(start, start + 65536)
            values[part] = self.project(pooled[part])[:, column].cpu().numpy()
            density = self.rate(pooled[part])
            if density is not None:
                rates = np.empty_like(values) if rates is None else rates
                rates[part] = density[:, column].cpu().numpy()
        adata = build_units(
            np.zeros((len(units), len(column)), np.float32),
            self.genes,
            list(units.barcodes),
            units.centers_px,
            shape=units.shape,
            size_um=units.size_um,
            mpp=slide["mpp"],
            library=slide["section"],
            in_tissue=slide["tissue_fraction"] >= 0.5 if "tissue_fraction" in slide else units.in_tissue,
            hires=slide.get("hires"),
            hires_scale=slide.get("hires_scale"),
            kind="prediction",
        )
        adata.X = values
        if rates is not None:
            adata.layers["rate_per_um2"] = rates
        if "tissue_fraction" in slide:  # an evaluation's units are measured ones, all on tissue
            adata.obs["tissue_fraction"] = slide["tissue_fraction"]
        adata.var = adata.var.join(self._trust())
        adata.uns["pixnet"] = {
            "unit_of_X": f"log1p of counts per 10,000 ({self.panel.transcriptome} transcriptome), predicted",
            "slide_mpp": slide["mpp"],
            "working_mpp": self.mpp,
            "effective_resolution_um": self.effective_resolution_um,
            "interpolated": is_interpolated(units.shape, units.size_um, self.effective_resolution_um),
            "unit_shape": units.shape,
            "unit_size_um": units.size_um,
            "trained_on_um": list(self.panel.unit_sizes_um),
            "checkpoint_sha256": hashlib.sha256(self.model_file.read_bytes()).hexdigest(),
            "version": _version(),
            "warnings": np.array(self._warnings(slide, units, rates is not None), dtype=str),
        }
        return adata

    def _trust(self) -> pd.DataFrame:
        """How well each gene was predicted on the validation slides, where there were any."""
        table = self.model_file.parent.parent / "evaluation" / "validation_genes.csv"
        columns = {"pcc_native": "pcc_val", "ceiling_native": "ceiling_val"}
        frame = pd.DataFrame(index=self.genes, columns=list(columns.values()), dtype=float)
        frame["n_patients_val"] = 0
        frame["same_patient_val"] = False
        summary = table.with_name("validation.json")
        if table.is_file() and summary.is_file():
            measured = pd.read_csv(table, keep_default_na=False, na_values=[""]).set_index("gene").reindex(self.genes)
            for source, target in columns.items():
                if source in measured:
                    frame[target] = measured[source]
            about = pd.read_json(summary, typ="series")
            frame["n_patients_val"] = int(about["patients"])
            frame["same_patient_val"] = bool(about["same_patient"])
        return frame

    def _warnings(self, slide: Mapping[str, Any], units: Units, has_rate: bool) -> list[str]:
        found = []
        if slide["mpp"] > self.mpp * 1.01:
            found.append(f"The slide has {slide['mpp']:.3g} µm per pixel, the model {self.mpp:.3g}: it was enlarged.")
        if is_interpolated(units.shape, units.size_um, self.effective_resolution_um):
            found.append(
                f"{units.size_um:g} µm is finer than the map ({self.effective_resolution_um:g} µm): interpolated."
            )
        sizes = self.panel.unit_sizes_um
        if not has_rate and not any(np.isclose(units.size_um, s) for s in sizes):
            trained = ", ".join(f"{s:g}" for s in sizes)
            found.append(f"The linear head was trained on {trained} µm units; {units.size_um:g} µm is approximate.")
        if units.size_um < LARGE_UNIT_UM:
            found.append("Below 55 µm y is the logarithm of an expected rate, not of a count that could be measured.")
        if "stain" in slide and stain_unlike(slide["stain"], self.panel.extra.get("stain", [])):
            found.append("The slide is stained unlike every training slide (optical density off by over 30 %).")
        if float(np.mean(slide.get("tissue_fraction", np.ones(1)) > 0)) < 0.5:
            found.append("More than half of the units lie off the tissue that was found on the slide.")
        for message in found:
            logger.warning("%s: %s", slide["section"], message)
        return found


def _version() -> str:
    try:
        return version("pixnet")
    except PackageNotFoundError:
        return "source"
