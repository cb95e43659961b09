"""The AnnData that answers for a slide, what it says of itself, and the handler that writes it."""

from __future__ import annotations

import hashlib
import logging
import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from ignite.engine import Engine, Events
from monai.utils import CommonKeys

from ..errors import InputError
from ..expression import LARGE_UNIT_UM
from ..files import move_folder
from ..panel import GenePanel
from ..tissue import stain_unlike
from ..units import is_interpolated
from ..version import bundle_version
from .answers import Answer, answers
from .dense_map import DenseMap, write_map
from .nifti import write_nifti
from .projection import Projection
from .requests import Request
from .streamed import StreamedAnnData

__all__ = ["MAX_H5AD_UNITS", "MAX_VALUES", "PredictionWriter", "expression_of", "model_sha256"]

logger = logging.getLogger(__name__)

#: From features (n, C) to y and, where the head gives them, rates of the genes to write, (n, G) each.
Express = Callable[[np.ndarray], tuple[np.ndarray, np.ndarray | None]]
#: Above this many units × genes a prediction keeps the factors, from which any gene is computed.
MAX_VALUES = 2**28
#: Above this many units AnnData is written as Zarr.
MAX_H5AD_UNITS = 2**20


def model_sha256(path: str | Path) -> str:
    """What identifies a model: the hash of its weights."""
    return hashlib.sha256(Path(path).read_bytes()).hexdigest() if Path(path).is_file() else ""


class PredictionWriter:
    """Write each slide's prediction as soon as it is done: AnnData of its units, and its map where asked for.

    Args:
        output: the file (`.h5ad` or `.zarr`) for a single slide, or the folder that gets `<slide>.h5ad`; None where
            only a map is wanted.
        panel: the genes and what was measured about them.
        project: pooled features to y.
        rate: pooled features to rates per µm², or None.
        stride: working pixels per map pixel.
        mpp: working resolution.
        model_file: the weights, whose hash identifies the model.
        genes: write these alone; by default all, or see `all_genes`.
        all_genes: also those that did not correlate positively with the measurement on the validation slides; without
            validation, or where no gene did, all are written.
        rasterize: see `UnitAccumulator`; needed to answer from a map.
        work_dir: of the `MapInferer`; a slide's folder there is removed when all of its outputs are whole.
        map_path: OME-Zarr to write: of `genes` if some are named, else of the features that give any gene.
        nifti_path: NIfTI to write: y of `genes` over the region.
    """

    def __init__(
        self,
        output: str | None,
        panel: GenePanel,
        project: Callable[[torch.Tensor], torch.Tensor],
        rate: Callable[[torch.Tensor], torch.Tensor | None],
        stride: int,
        mpp: float,
        model_file: str,
        genes: Sequence[str] | None = None,
        rasterize: Callable[..., Any] | None = None,
        work_dir: str | None = None,
        map_path: str | None = None,
        nifti_path: str | None = None,
        all_genes: bool = True,
    ) -> None:
        self.output = None if output is None else Path(output)
        self.panel = panel
        self.project = project
        self.rate = rate
        self.effective_resolution_um = float(stride * mpp)
        self.mpp = float(mpp)
        self.model_file = Path(model_file)
        self.asked = None if genes is None else list(dict.fromkeys(genes))
        self.all_genes = bool(all_genes)
        self.rasterize = rasterize
        self.work_dir = None if work_dir is None else Path(work_dir)
        self.map_path = map_path
        self.nifti_path = nifti_path
        if self.asked is not None and not self.asked:
            raise InputError("No gene is asked for: name some, or leave genes out to have all.")
        unknown = [g for g in self.asked or [] if g not in set(panel.genes)]
        if unknown:
            raise InputError(
                f"The model does not predict {', '.join(unknown[:5])}; its {len(panel)} genes are listed in panel.json."
            )

    @property
    def genes(self) -> list[str]:
        """Genes to write."""
        if self.asked is not None:
            return self.asked
        untrusted = set(self.left_out)
        return [gene for gene in self.panel.genes if gene not in untrusted]

    @cached_property
    def left_out(self) -> list[str]:
        """Genes that nobody asked for and whose validation PCC is not above 0."""
        if self.all_genes or self.asked is not None:
            return []
        pcc = self._trust(self.panel.genes)["pcc_val"].to_numpy(dtype=float)
        positive = pcc > 0
        return [g for g, ok in zip(self.panel.genes, positive, strict=True) if not ok] if positive.any() else []

    def attach(self, engine: Engine) -> None:
        """Refuse what cannot be written before the network runs, and write at the end of each slide."""
        engine.add_event_handler(Events.STARTED, self._check_several)
        engine.add_event_handler(Events.GET_BATCH_COMPLETED, self._check)
        engine.add_event_handler(Events.ITERATION_COMPLETED, self)

    def _check_several(self, engine: Engine) -> None:
        one = [p for p in (self.output, self.map_path, self.nifti_path) if p is not None and Path(p).suffix]
        if (engine.state.epoch_length or 1) > 1 and one:
            raise InputError(
                f"{one[0]} holds one slide, and {engine.state.epoch_length} are given: each would overwrite it. "
                "Give a folder for the output, or a table of slides (docs/cohorts.md)."
            )

    def _check(self, engine: Engine) -> None:
        slide: Any = engine.state.batch
        for request in slide.get("requests", []):
            path = self._path(slide, request)
            if path.suffix == ".h5ad" and len(request.units) > MAX_H5AD_UNITS:
                raise InputError(
                    f"{path} would hold {len(request.units):,} units of {request.units.size_um:g} µm; above "
                    f"{MAX_H5AD_UNITS:,} AnnData is written as Zarr: end the name in .zarr."
                )

    def __call__(self, engine: Engine) -> None:
        """Write one slide."""
        output: Any = engine.state.output
        slide, pred = output[CommonKeys.IMAGE], output[CommonKeys.PRED]
        requests = slide["requests"] if "requests" in slide else [Request(slide["units"])]
        for request in requests:
            self.write(slide, request, pred)
        if self.map_path is not None:
            write_map(pred, self.map_path, slide["section"], self.asked)
            logger.info("%s: map written to %s", slide["section"], self.map_path)
        if self.nifti_path is not None:
            write_nifti(pred, self.nifti_path, self.genes, slide["region_um"])
            logger.info("%s: region written to %s", slide["section"], self.nifti_path)
        if self.work_dir is not None:
            shutil.rmtree(self.work_dir / slide["section"], ignore_errors=True)
            if self.work_dir.is_dir() and not any(self.work_dir.iterdir()):
                self.work_dir.rmdir()

    def _path(self, slide: Mapping[str, Any], request: Request) -> Path:
        if self.output is None:
            raise InputError("Units are asked for, but no file to write them to.")
        if self.output.suffix in (".h5ad", ".zarr"):
            return self.output.with_name(self.output.stem + request.suffix + self.output.suffix)
        ending = ".h5ad" if len(request.units) <= MAX_H5AD_UNITS else ".zarr"
        return self.output / f"{slide['section']}{request.suffix}{ending}"

    @torch.no_grad()
    def write(self, slide: Mapping[str, Any], request: Request, pred: DenseMap | torch.Tensor) -> Path:
        """Write one request's AnnData; it appears when it is whole."""
        path = self._path(slide, request)
        units = request.units
        folder = path.parent if self.work_dir is None else self.work_dir / slide["section"]
        folder.mkdir(parents=True, exist_ok=True)
        express: Express
        if isinstance(pred, DenseMap):
            projection = pred.projection
            assert projection is not None
            part = projection.columns(self.genes)
            express = lambda features: (part.expression(features), part.rate(features) if part.has_rate else None)  # noqa: E731
        else:  # an evaluation's: the very figures that are scored
            projection = Projection.of(self.panel.genes, pred.shape[1], self.project, self.rate, pred)
            express = self._by_network(pred)
        factors = len(units) * len(self.panel) > MAX_VALUES
        names = self.genes
        wanted = None if factors and self.asked is None else express
        header = self._header(slide, request, projection, names, factors)
        model = header["uns"]["pixnet"]["checkpoint_sha256"]
        identity = {"genes": names, "model": model, "asked": request.digest, "with_X": wanted is not None}
        out = StreamedAnnData(folder / f".{path.stem}.part{path.suffix}", len(units), header, identity)
        started, told = time.monotonic(), time.monotonic()
        before = out.written
        done = before
        half = factors and wanted is None
        rows = answers(request, pred, slide["mpp"], self.rasterize, folder, before, half)
        for answer in _ahead(rows):
            out.append(_rows(answer, slide["mpp"], wanted, factors))
            done += len(answer)
            if time.monotonic() - told > 5:
                told = time.monotonic()
                rate = (done - before) / (told - started)
                logger.info("%d of %d units, %.0f/s, %.0f s left", done, len(units), rate, (len(units) - done) / rate)
        if len(units) == 0:
            out.append(_rows(_nothing(projection), slide["mpp"], wanted, factors))
        out.close()
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.suffix == ".zarr":
            move_folder(out.path, path)
        else:
            out.path.replace(path)
        logger.info("%s: %d units x %d genes written to %s", slide["section"], len(units), len(names), path)
        return path

    def _by_network(self, pred: torch.Tensor) -> Express:
        place = {gene: i for i, gene in enumerate(self.panel.genes)}
        column = [place[gene] for gene in self.genes]

        def express(features: np.ndarray) -> tuple[np.ndarray, np.ndarray | None]:
            pooled = torch.from_numpy(np.ascontiguousarray(features)).to(pred)
            rate = self.rate(pooled)
            y = self.project(pooled)[:, column].cpu().numpy()
            return y, None if rate is None else rate[:, column].cpu().numpy()

        return express

    def _header(
        self, slide: Mapping[str, Any], request: Request, projection: Projection, names: list[str], factors: bool
    ) -> dict[str, Any]:
        units = request.units
        var = pd.DataFrame({"gene_ids": names}, index=pd.Index(names)).join(self._trust(names))
        scalefactors = {"spot_diameter_fullres": units.size_um / slide["mpp"]}
        spatial: dict[str, Any] = {"scalefactors": scalefactors, "metadata": {"mpp": slide["mpp"]}, "images": {}}
        if slide.get("hires") is not None:
            spatial["images"]["hires"] = slide["hires"]
            scalefactors["tissue_hires_scalef"] = slide["hires_scale"]
        about: dict[str, Any] = {
            "unit_of_X": f"log1p of counts per 10,000 ({self.panel.transcriptome} transcriptome), predicted",
            "slide_mpp": slide["mpp"],
            "working_mpp": self.mpp,
            "effective_resolution_um": self.effective_resolution_um,
            "interpolated": is_interpolated(units.shape, units.size_um, self.effective_resolution_um),
            "unit_shape": units.shape,
            "unit_size_um": units.size_um,
            "trained_on_um": list(self.panel.unit_sizes_um),
            "checkpoint_sha256": model_sha256(self.model_file),
            "version": bundle_version(),
            "genes_left_out": np.array(self.left_out, dtype=str),
            "warnings": np.array(self._warnings(slide, request, projection.has_rate), dtype=str),
        }
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

    def _trust(self, genes: Sequence[str]) -> pd.DataFrame:
        """How well each gene was predicted on the validation slides, where there were any."""
        table = self.model_file.parent.parent / "evaluation" / "validation_genes.csv"
        columns = {"pcc_native": "pcc_val", "ceiling_native": "ceiling_val"}
        frame = pd.DataFrame(index=list(genes), columns=list(columns.values()), dtype=float)
        frame["n_patients_val"] = 0
        frame["same_patient_val"] = False
        summary = table.with_name("validation.json")
        if table.is_file() and summary.is_file():
            measured = pd.read_csv(table, keep_default_na=False, na_values=[""]).set_index("gene").reindex(list(genes))
            for source, target in columns.items():
                if source in measured:
                    frame[target] = measured[source]
            about = pd.read_json(summary, typ="series")
            frame["n_patients_val"] = int(about["patients"])
            frame["same_patient_val"] = bool(about["same_patient"])
        return frame

    def _warnings(self, slide: Mapping[str, Any], request: Request, has_rate: bool) -> list[str]:
        units = request.units
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
        fraction = request.tissue_fraction
        if fraction is not None and len(fraction) and float(np.mean(fraction > 0)) < 0.5:
            found.append("More than half of the units lie off the tissue that was found on the slide.")
        if self.left_out:
            found.append(
                f"{len(self.left_out)} of {len(self.panel)} genes did not correlate positively with the measurement on "
                "the validation slides and are left out; all_genes=true writes them."
            )
        for message in found:
            logger.warning("%s: %s", slide["section"], message)
        return found


def _ahead(items: Iterator[Answer]) -> Iterator[Answer]:
    """The same, the next one being made while one is written."""
    with ThreadPoolExecutor(max_workers=1) as maker:
        following = maker.submit(next, items, None)
        while (item := following.result()) is not None:
            following = maker.submit(next, items, None)
            yield item


def _rows(answer: Answer, slide_mpp: float, express: Express | None, factors: bool) -> dict[str, np.ndarray]:
    """An answer as the AnnData's rows."""
    rows = {"obs/_index": answer.names, "obsm/spatial": answer.centers_um / slide_mpp}
    rows |= {f"obs/{name}": values for name, values in answer.obs.items()}
    if express is not None:
        rows["X"], rate = express(answer.features)
        if rate is not None:
            rows["layers/rate_per_um2"] = rate
    if factors:
        rows["obsm/features"] = answer.features.astype(np.float16, copy=False)
    return rows


def _nothing(projection: Projection) -> Answer:
    none = np.zeros(0, bool)
    return Answer(
        np.zeros(0, "S1"),
        np.zeros((0, 2)),
        np.zeros((0, projection.loadings.shape[1]), np.float32),
        {"in_tissue": none},
    )


def expression_of(adata: Any, genes: Sequence[str]) -> np.ndarray:
    """Y = log1p CP10k of some genes from a prediction that kept the factors, float32 (units, genes).

    Args:
        adata: an AnnData with `obsm["features"]`, or some of its units.
        genes: any genes of the model, in `adata.uns["pixnet"]["projection"]["genes"]`.

    Raises:
        InputError: if it holds no factors, or the model does not predict a gene.
    """
    content = adata.uns.get("pixnet", {}).get("projection")
    if content is None or "features" not in adata.obsm:
        raise InputError("This AnnData holds no factors: its genes are in X already, or it is no prediction of PixNet.")
    projection = Projection.from_dict(content)
    unknown = [gene for gene in genes if gene not in projection.genes]
    if unknown:
        raise InputError(f"The model does not predict {', '.join(unknown[:5])}.")
    return projection.columns(list(genes)).expression(np.asarray(adata.obsm["features"], np.float32))
