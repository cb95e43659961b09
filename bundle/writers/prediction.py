"""The handler that writes a slide's prediction: AnnData of its units, its map, a region."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from ignite.engine import Engine, Events
from monai.utils import CommonKeys

from ..data.panel import GenePanel
from ..errors import InputError
from ..files.atomic import make_folder
from ..files.ownership import WORK, check_output, claim, remove_ours
from ..inference.dense_map import DenseMap
from ..inference.express import Projection
from ..inference.prediction_dataset import UnitSet
from ..inference.provenance import Provenance
from .nifti import write_nifti
from .ome_zarr import write_map
from .predicted_units import PredictedUnits

__all__ = ["MAX_H5AD_UNITS", "PredictionWriter"]

logger = logging.getLogger(__name__)

#: Above this many units AnnData is written as Zarr.
MAX_H5AD_UNITS = 2**20


class PredictionWriter:
    """Write each slide's prediction as soon as it is done.

    Args:
        output: the file (`.h5ad` or `.zarr`) for a single slide, or the folder that gets `<slide>.h5ad`; None where
            only a map is wanted.
        panel: the genes and what was measured about them.
        network: with `stride`, and with `affine` (see `Projection.of`).
        mpp: working resolution in µm per pixel.
        model_file: the weights, whose hash identifies the model.
        genes: write these alone; by default all, or see `all_genes`.
        all_genes: also those that did not correlate positively with the measurement on the validation slides; without
            validation, or where no gene did, all are written.
        rasterize: see `bundle.inference.pool.pool`; needed for given units with a map.
        work_dir: of the `MapInferer`; a slide's folder there is removed when all of its outputs are whole.
        map_path: OME-Zarr to write: of `genes` if some are named, else of the features that give any gene.
        nifti_path: NIfTI to write: log1p CP10k of `genes` over the region.
        clip: clip X to the range of log1p CP10k. False keeps what the head gives, for averages that are clipped
            after.
    """

    def __init__(
        self,
        output: str | None,
        panel: GenePanel,
        network: Any,
        *,
        mpp: float,
        model_file: str,
        genes: Sequence[str] | None = None,
        rasterize: Callable[..., Any] | None = None,
        work_dir: str | None = None,
        map_path: str | None = None,
        nifti_path: str | None = None,
        all_genes: bool = True,
        clip: bool = True,
    ) -> None:
        self.network = network
        self.output = None if output is None else Path(output)
        self.panel = panel
        self.clip = bool(clip)
        self.provenance = Provenance(panel, float(mpp), float(self.network.stride * mpp), Path(model_file), self.clip)
        self.named = None if genes is None else list(dict.fromkeys(genes))
        self.all_genes = bool(all_genes)
        self.rasterize = rasterize
        self.work_dir = None if work_dir is None else Path(work_dir)
        self.map_path = map_path
        self.nifti_path = nifti_path
        if self.named is not None and not self.named:
            raise InputError("The list of genes is empty: name some, or leave genes out to have all.")
        panel.refuse_unknown(self.named or [], Path(model_file).parent / "panel.json")

    @property
    def genes(self) -> list[str]:
        """Genes to write."""
        if self.named is not None:
            return self.named
        left_out = set(self.left_out)
        return [gene for gene in self.panel.genes if gene not in left_out]

    @cached_property
    def left_out(self) -> list[str]:
        """Genes that the user did not name and whose validation PCC is not above 0."""
        if self.all_genes or self.named is not None:
            return []
        trust = self.provenance.trust(self.panel.genes)
        if "pcc_val" not in trust:
            return []
        positive = trust["pcc_val"].to_numpy(dtype=float) > 0
        return [g for g, ok in zip(self.panel.genes, positive, strict=True) if not ok] if positive.any() else []

    def attach(self, engine: Engine) -> None:
        """Refuse what cannot be written before the network runs, and write at the end of each slide."""
        engine.add_event_handler(Events.STARTED, self._check_several)
        engine.add_event_handler(Events.GET_BATCH_COMPLETED, self._check)
        engine.add_event_handler(Events.ITERATION_COMPLETED, self)

    def _check_several(self, engine: Engine) -> None:
        one = [self.output] if self.output is not None and self._is_file(self.output) else []
        one += [Path(path) for path in (self.map_path, self.nifti_path) if path is not None]
        if (engine.state.epoch_length or 1) > 1 and one:
            raise InputError(
                f"{one[0]} holds one slide, and {engine.state.epoch_length} are given: each would overwrite it. "
                "Give a folder for the output, or a table of slides (docs/guide/cohorts.md)."
            )

    def _check(self, engine: Engine) -> None:
        slide: Any = engine.state.batch
        inputs = [slide["image"], slide.get("label"), self.provenance.model_file]
        for extra in (self.map_path, self.nifti_path):
            if extra is not None:
                check_output(extra, inputs)
        for unit_set in slide.get("unit_sets", []):
            path = self._path(slide, unit_set)
            check_output(path, inputs)
            if path.suffix == ".h5ad" and len(unit_set.units) > MAX_H5AD_UNITS:
                raise InputError(
                    f"{len(unit_set.units):,} units of {unit_set.units.size_um:g} µm are too many for an .h5ad, which "
                    f"holds up to {MAX_H5AD_UNITS:,}: end the name in .zarr, or, for a standard error, ask for fewer."
                )

    def __call__(self, engine: Engine) -> None:
        """Write one slide."""
        output: Any = engine.state.output
        slide, pred = output[CommonKeys.IMAGE], output[CommonKeys.PRED]
        for unit_set in slide["unit_sets"] if "unit_sets" in slide else [UnitSet(slide["units"])]:
            self.write(slide, unit_set, pred)
        if self.map_path is not None:
            write_map(pred, self.map_path, slide["section"], self.named)
            logger.info("%s: map written to %s", slide["section"], self.map_path)
        if self.nifti_path is not None:
            write_nifti(pred, self.nifti_path, self.genes, slide["region_um"])
            logger.info("%s: region written to %s", slide["section"], self.nifti_path)
        if self.work_dir is not None:
            remove_ours(self.work_dir / slide["section"], "work", WORK)
            if self.work_dir.is_dir() and not any(self.work_dir.iterdir()):
                self.work_dir.rmdir()

    @torch.no_grad()
    def write(self, slide: Mapping[str, Any], unit_set: UnitSet, source: DenseMap | torch.Tensor) -> Path:
        """Write the AnnData of one set of units; it appears when it is whole.

        Args:
            slide: a slide as `PredictionDataset` or `SlideDataset` gives it.
            unit_set: the units.
            source: the slide's map, or the units' pooled features (U, C).

        Returns:
            The file.
        """
        path = self._path(slide, unit_set)
        folder = path.parent if self.work_dir is None else claim(self.work_dir / slide["section"], "work")
        make_folder(folder)
        # An evaluation's features come without a head.
        head = source.projection if isinstance(source, DenseMap) else Projection.of(self.panel.genes, self.network)
        assert head is not None
        table = PredictedUnits(
            head,
            self.genes,
            provenance=self.provenance,
            left_out=self.left_out,
            named=self.named is not None,
            rasterize=self.rasterize,
        )
        table.write(path, folder, slide, unit_set, source)
        n_genes = len(self.genes)
        logger.info("%s: %d units x %d genes written to %s", slide["section"], len(unit_set.units), n_genes, path)
        return path

    @staticmethod
    def _is_file(output: Path) -> bool:
        """Whether the output is one slide's, or a folder for several; a folder's name may hold a dot."""
        return output.suffix in (".h5ad", ".zarr")

    def _path(self, slide: Mapping[str, Any], unit_set: UnitSet) -> Path:
        if self.output is None:
            raise InputError("There are units to predict, but no file to write them to: give an output.")
        if self._is_file(self.output):
            return self.output.with_name(self.output.stem + unit_set.suffix + self.output.suffix)
        ending = ".h5ad" if len(unit_set.units) <= MAX_H5AD_UNITS else ".zarr"
        return self.output / f"{slide['section']}{unit_set.suffix}{ending}"
