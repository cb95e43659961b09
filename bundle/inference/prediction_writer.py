"""The AnnData that answers for a slide, what it says of itself, and the handler that writes it."""

from __future__ import annotations

import logging
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any

import h5py
import ignite.distributed as idist
import numpy as np
import pandas as pd
import torch
import zarr
from anndata.io import read_elem, write_elem
from ignite.engine import Engine, Events
from monai.utils import CommonKeys

from ..data.normalisation import bounded
from ..data.panel import GenePanel
from ..data.units import Units
from ..errors import InputError
from ..files.atomic import make_folder, move
from ..files.ownership import WORK, check_output, claim, remove_ours
from ..writers.anndata import StreamedAnnData
from ..writers.nifti import write_nifti
from .clipping import CLIPPED, clipped_genes, told_clipped
from .dense_map import DenseMap, write_map
from .prediction_dataset import Request
from .projection import Projection, product_by_torch
from .provenance import Header
from .threads import keep_to_cores
from .unit_batches import Answer, answers

__all__ = ["MAX_H5AD_UNITS", "MAX_VALUES", "PredictionWriter"]

logger = logging.getLogger(__name__)

#: From features (n, C) to unclipped y and, where the head gives them, rates of the genes to write, (n, G) each.
Express = Callable[[np.ndarray], tuple[np.ndarray, np.ndarray | None]]
#: Above this many units × genes a prediction keeps the factors, from which any gene is computed.
MAX_VALUES = 2**28
#: Values of genes computed at once; 64 MB.
_VALUES_AT_ONCE = 2**24
#: Above this many units AnnData is written as Zarr.
MAX_H5AD_UNITS = 2**20


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
        bounded: clip X to what log1p CP10k can be. False keeps what the head gives, for averages that are clipped
            after.
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
        bounded: bool = True,
    ) -> None:
        self.output = None if output is None else Path(output)
        self.panel = panel
        self.project = project
        self.rate = rate
        self.bounded = bool(bounded)
        self.header = Header(panel, float(mpp), float(stride * mpp), Path(model_file), self.bounded)
        self.asked = None if genes is None else list(dict.fromkeys(genes))
        self.all_genes = bool(all_genes)
        self.rasterize = rasterize
        self.work_dir = None if work_dir is None else Path(work_dir)
        self.map_path = map_path
        self.nifti_path = nifti_path
        if self.asked is not None and not self.asked:
            raise InputError("No gene is asked for: name some, or leave genes out to have all.")
        panel.refuse_unknown(self.asked or [], Path(model_file).parent / "panel.json")

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
        trust = self.header.trust(self.panel.genes)
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
        inputs = [slide["image"], slide.get("label"), self.header.model_file]
        for extra in (self.map_path, self.nifti_path):
            if extra is not None:
                check_output(extra, inputs)
        for request in slide.get("requests", []):
            path = self._path(slide, request)
            check_output(path, inputs)
            if path.suffix == ".h5ad" and len(request.units) > MAX_H5AD_UNITS:
                raise InputError(
                    f"{len(request.units):,} units of {request.units.size_um:g} µm are too many for an .h5ad, which "
                    f"holds up to {MAX_H5AD_UNITS:,}: end the name in .zarr, or, for a standard error, ask for fewer."
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
            remove_ours(self.work_dir / slide["section"], "work", WORK)
            if self.work_dir.is_dir() and not any(self.work_dir.iterdir()):
                self.work_dir.rmdir()

    @staticmethod
    def _is_file(output: Path) -> bool:
        """Whether the output is one slide's, or a folder for several; a folder's name may hold a dot."""
        return output.suffix in (".h5ad", ".zarr")

    def _path(self, slide: Mapping[str, Any], request: Request) -> Path:
        if self.output is None:
            raise InputError("Units are asked for, but no file to write them to.")
        if self._is_file(self.output):
            return self.output.with_name(self.output.stem + request.suffix + self.output.suffix)
        ending = ".h5ad" if len(request.units) <= MAX_H5AD_UNITS else ".zarr"
        return self.output / f"{slide['section']}{request.suffix}{ending}"

    @torch.no_grad()
    def write(self, slide: Mapping[str, Any], request: Request, pred: DenseMap | torch.Tensor) -> Path:
        """Write one request's AnnData; it appears when it is whole."""
        path = self._path(slide, request)
        units = request.units
        folder = path.parent if self.work_dir is None else claim(self.work_dir / slide["section"], "work")
        make_folder(folder)
        express: Express
        if isinstance(pred, DenseMap):
            projection = pred.projection
            assert projection is not None
            part = projection.columns(self.genes)
            express = _by_projection(part)
        else:  # an evaluation's: the very figures that are scored
            projection = Projection.of(self.panel.genes, pred.shape[1], self.project, self.rate, pred)
            express = self._by_network(pred)
        factors = len(units) * len(self.panel) > MAX_VALUES
        names = self.genes
        wanted = None if factors and self.asked is None else express
        header = self.header.build(slide, request, projection, names, factors, self.left_out, wanted is not None)
        model = header["uns"]["pixnet"]["checkpoint_sha256"]
        identity = {"genes": names, "model": model, "asked": request.digest, "with_X": wanted is not None}
        identity |= {} if self.bounded else {"bounded": False}
        # Rates above 0 make every share of them lie in its range.
        clip = self.bounded and wanted is not None
        count = clip and not projection.has_rate
        # Ranks that share a slide, as padding makes them, write the same file, each by way of a part of its own.
        rank = idist.get_rank() or ""
        out = StreamedAnnData(folder / f".{path.stem}.part{rank}{path.suffix}", len(units), header, identity)
        started, told = time.monotonic(), time.monotonic()
        before = out.written
        done = before
        half = factors and wanted is None
        made = answers(request, pred, slide["mpp"], self.rasterize, folder, before, half)
        at_once = max(_VALUES_AT_ONCE // len(names), 1) if wanted is not None else max(len(units), 1)
        for answer in _ahead(made):
            for first in range(0, len(answer), at_once):
                piece = answer.part(first, first + at_once)
                if piece.done < len(piece):
                    rows = _rows(piece, slide["mpp"], wanted, factors, clip, count)
                    out.append({name: values[piece.done :] for name, values in rows.items()})
            done += len(answer) - answer.done
            if time.monotonic() - told > 5:
                told = time.monotonic()
                rate = (done - before) / (told - started)
                logger.info("%d of %d units, %.0f/s, %.0f s left", done, len(units), rate, (len(units) - done) / rate)
        if len(units) == 0:
            out.append(_rows(_nothing(projection), slide["mpp"], wanted, factors, clip, count))
        out.close()
        if count:
            _tell_clipped(out.path, slide["section"], len(units) * len(names))
        if isinstance(units, Units) and units.obs is not None:
            _as_categories(out.path, units.obs)
        path.parent.mkdir(parents=True, exist_ok=True)
        move(out.path, path)
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


def _by_projection(part: Projection) -> Express:
    def express(features: np.ndarray) -> tuple[np.ndarray, np.ndarray | None]:
        rate = part.rate(features, product_by_torch) if part.has_rate else None
        return part.unbounded(features, product_by_torch), rate

    return express


@contextmanager
def _written(path: Path) -> Iterator[Any]:
    """A whole AnnData on disk, to change something small in it."""
    with ExitStack() as stack:
        stack.enter_context(warnings.catch_warnings())
        warnings.filterwarnings("ignore", "zarr v3 autosharding", UserWarning)  # one column is not large
        zarr_form = path.suffix == ".zarr"
        yield zarr.open_group(str(path), mode="r+") if zarr_form else stack.enter_context(h5py.File(path, "r+"))


def _as_categories(path: Path, obs: pd.DataFrame) -> None:
    """Write a table's categories as anndata keeps them, in the place of the text that the rows brought."""
    with _written(path) as group:
        for name, column in obs.items():
            if isinstance(column.dtype, pd.CategoricalDtype):
                del group["obs"][name]
                write_elem(group["obs"], str(name), column.array)


def _tell_clipped(path: Path, section: str, n_values: int) -> None:
    """Add to a written file how many of its values were clipped."""
    with _written(path) as group:
        about = group["uns"]["pixnet"]
        clipped, message = told_clipped(int(group["obs"][CLIPPED][:].sum(dtype=np.int64)), n_values)
        write_elem(about, "clipped", clipped)
        if message is not None:
            logger.warning("%s: %s", section, message)
            told = [*read_elem(about["warnings"]), message]
            del about["warnings"]
            write_elem(about, "warnings", np.array(told, dtype=str))


def _ahead(items: Iterator[Answer]) -> Iterator[Answer]:
    """The same, the next one being made by half of the threads while one is written."""
    half = max(torch.get_num_threads() // 2, 1)
    with ThreadPoolExecutor(1, initializer=keep_to_cores, initargs=(half,)) as maker:
        following = maker.submit(next, items, None)
        while (item := following.result()) is not None:
            following = maker.submit(next, items, None)
            yield item


def _rows(
    answer: Answer, slide_mpp: float, express: Express | None, factors: bool, clip: bool, count: bool
) -> dict[str, np.ndarray]:
    """An answer as the AnnData's rows; with `count`, `obs` tells how many genes of each unit were clipped."""
    rows = {"obs/_index": answer.names, "obsm/spatial": answer.centers_um / slide_mpp}
    rows |= {f"obs/{name}": values for name, values in answer.obs.items()}
    if express is not None:
        y, rate = express(answer.features)
        if not np.isfinite(y).all():
            raise InputError("The model gives values that are not finite, so nothing is written: train it again.")
        rows["X"] = bounded(y) if clip else y
        if count:
            rows[f"obs/{CLIPPED}"] = clipped_genes(y)
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
