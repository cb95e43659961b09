"""The AnnData of predicted units: pool and express piece by piece, and write each piece while the next is made."""

from __future__ import annotations

import logging
import time
import warnings
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import ignite.distributed as idist
import numpy as np
import pandas as pd
import torch
import zarr
from anndata.io import read_elem, write_elem

from ..data.normalisation import bounded
from ..data.units import Units
from ..errors import InputError
from ..files.atomic import move
from ..inference.clipping import CLIPPED, clipped_genes, clipping_summary
from ..inference.dense_map import DenseMap
from ..inference.express import Projection, express
from ..inference.prediction_dataset import UnitSet
from ..inference.provenance import Provenance
from ..inference.unit_batches import UnitBatch, unit_batches
from ..speed.threads import keep_to_cores
from .anndata import StreamedAnnData

__all__ = ["MAX_VALUES", "PredictedUnits"]

logger = logging.getLogger(__name__)

#: Above this many units × genes a prediction keeps the features, from which any gene is computed.
MAX_VALUES = 2**28
#: Values of genes computed at once; 64 MB.
_VALUES_AT_ONCE = 2**24
_LOG_EVERY_S = 5.0


@dataclass(frozen=True, eq=False)
class PredictedUnits:
    """How predicted units are written.

    Attributes:
        head: from features to all genes of the panel.
        genes: names of those to write.
        provenance: what the file says of the model.
        left_out: genes that are not written because they failed on the validation slides.
        named: the user named the genes: they are written as values, however many the units are.
        rasterize: see `bundle.inference.pool.pool`.
    """

    head: Projection
    genes: list[str]
    provenance: Provenance
    left_out: Sequence[str] = ()
    named: bool = False
    rasterize: Any = None

    def write(
        self,
        path: Path,
        scratch: Path,
        slide: Mapping[str, Any],
        unit_set: UnitSet,
        source: DenseMap | torch.Tensor,
    ) -> None:
        """Write one file, which appears when it is whole.

        Args:
            path: the `.h5ad` or `.zarr`.
            scratch: folder for what is not yet whole; a `.zarr` that a killed process left there is continued.
            slide: a slide as `PredictionDataset` or `SlideDataset` gives it.
            unit_set: the units.
            source: the slide's map, or the units' pooled features (U, C).

        Raises:
            InputError: if the model gives NaN or infinity.
        """
        units = unit_set.units
        factors = len(units) * len(self.head.genes) > MAX_VALUES
        values = self.named or not factors
        clip = self.provenance.clip and values
        rows = _Rows(
            self.head.columns(self.genes) if values else None,
            slide["mpp"],
            factors,
            clip,
            count=clip and not self.head.has_rate,  # a share of rates above 0 always lies in the range
        )
        content = self.provenance.describe(
            slide, unit_set, self.head, self.genes, factors, self.left_out, with_X=values
        )
        model = content["uns"]["pixnet"]["checkpoint_sha256"]
        identity = {"genes": self.genes, "model": model, "units_of": unit_set.digest, "with_X": values}
        identity |= {} if self.provenance.clip else {"clip": False}
        # Ranks that share a slide, as padding makes them, write the same file, each in a temporary file of its own.
        rank = idist.get_rank() or ""
        out = StreamedAnnData(scratch / f".{path.stem}.part{rank}{path.suffix}", len(units), content, identity)
        dtype = np.float32 if values else np.float16
        batches = unit_batches(unit_set, source, slide["mpp"], self.rasterize, scratch, out.written, dtype)
        at_once = max(_VALUES_AT_ONCE // len(self.genes), 1) if values else max(len(units), 1)
        progress = _Progress(len(units), out.written)
        for batch in _ahead(batches):
            for first in range(0, len(batch), at_once):
                piece = batch.part(first, first + at_once)
                if piece.done < len(piece):
                    out.append({name: column[piece.done :] for name, column in rows.of(piece).items()})
            progress.step(len(batch) - batch.done)
        if len(units) == 0:
            out.append(rows.of(_no_units(self.head)))
        out.close()
        if rows.count:
            _add_clipping(out.path, slide["section"], len(units) * len(self.genes))
        if isinstance(units, Units) and units.obs is not None:
            _as_categories(out.path, units.obs)
        path.parent.mkdir(parents=True, exist_ok=True)
        move(out.path, path)


@dataclass(frozen=True)
class _Rows:
    """What a batch of units becomes in the AnnData.

    Attributes:
        head: of the genes to write; None where the features alone are written.
        slide_mpp: micrometres per level-0 pixel.
        factors: write the features.
        clip: clip X to its range.
        count: `obs` says how many genes of each unit were clipped.
    """

    head: Projection | None
    slide_mpp: float
    factors: bool
    clip: bool
    count: bool

    def of(self, batch: UnitBatch) -> dict[str, np.ndarray]:
        rows = {"obs/_index": batch.names, "obsm/spatial": batch.centers_um / self.slide_mpp}
        rows |= {f"obs/{name}": values for name, values in batch.obs.items()}
        if self.head is not None:
            y, rate = express(batch.features, self.head)
            if not np.isfinite(y).all():
                raise InputError("The model gives values that are not finite, so nothing is written: train it again.")
            rows["X"] = bounded(y) if self.clip else y
            if self.count:
                rows[f"obs/{CLIPPED}"] = clipped_genes(y)
            if rate is not None:
                rows["layers/rate_per_um2"] = rate
        if self.factors:
            rows["obsm/features"] = batch.features.astype(np.float16, copy=False)
        return rows


class _Progress:
    """Logs units done, the rate and the time left, every few seconds."""

    def __init__(self, total: int, before: int) -> None:
        self.total, self.before, self.done = total, before, before
        self.started = self.logged = time.monotonic()

    def step(self, units: int) -> None:
        self.done += units
        now = time.monotonic()
        if now - self.logged > _LOG_EVERY_S:
            self.logged = now
            rate = (self.done - self.before) / (now - self.started)
            left_s = (self.total - self.done) / rate
            logger.info("%d of %d units, %.0f/s, %.0f s left", self.done, self.total, rate, left_s)


def _ahead(items: Iterator[UnitBatch]) -> Iterator[UnitBatch]:
    """The same; half of the threads make the next one while one is written."""
    half = max(torch.get_num_threads() // 2, 1)
    with ThreadPoolExecutor(1, initializer=keep_to_cores, initargs=(half,)) as maker:
        following = maker.submit(next, items, None)
        while (item := following.result()) is not None:
            following = maker.submit(next, items, None)
            yield item


def _no_units(head: Projection) -> UnitBatch:
    features = np.zeros((0, head.loadings.shape[1]), np.float32)
    return UnitBatch(np.zeros(0, "S1"), np.zeros((0, 2)), features, {"in_tissue": np.zeros(0, bool)})


@contextmanager
def _reopened(path: Path) -> Iterator[Any]:
    """A whole AnnData on disk, to change something small in it."""
    with ExitStack() as stack:
        stack.enter_context(warnings.catch_warnings())
        warnings.filterwarnings("ignore", "zarr v3 autosharding", UserWarning)  # one column is not large
        zarr_form = path.suffix == ".zarr"
        yield zarr.open_group(str(path), mode="r+") if zarr_form else stack.enter_context(h5py.File(path, "r+"))


def _as_categories(path: Path, obs: pd.DataFrame) -> None:
    """Write a table's categories as anndata keeps them, in the place of the text that the rows brought."""
    with _reopened(path) as group:
        for name, column in obs.items():
            if isinstance(column.dtype, pd.CategoricalDtype):
                del group["obs"][name]
                write_elem(group["obs"], str(name), column.array)


def _add_clipping(path: Path, section: str, n_values: int) -> None:
    """Add to a written file how many of its values were clipped."""
    with _reopened(path) as group:
        about = group["uns"]["pixnet"]
        clipped, message = clipping_summary(int(group["obs"][CLIPPED][:].sum(dtype=np.int64)), n_values)
        write_elem(about, "clipped", clipped)
        if message is not None:
            logger.warning("%s: %s", section, message)
            messages = [*read_elem(about["warnings"]), message]
            del about["warnings"]
            write_elem(about, "warnings", np.array(messages, dtype=str))
