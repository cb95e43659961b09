"""The gene panel: what a model predicts, chosen and standardised on training slides only."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
import scipy.sparse as sp

from ..errors import InputError, did_you_mean
from ..files.atomic import write_json
from ..files.reading import read_json
from ..files.schemas import PANEL
from ..version import bundle_version
from .binning import squares_at, summed_to
from .lazy_bins import read_lazy_bins
from .normalisation import LARGE_UNIT_UM, eligible, log1p_cp10k, pearson_residuals
from .units import MIN_MEASURED, Units, read_units

__all__ = ["GenePanel", "extend_panel", "fit_panel", "in_block", "load_panel", "load_units", "n_genes"]

logger = logging.getLogger(__name__)


@dataclass
class GenePanel:
    """Genes with the training statistics that predictions are expressed in.

    Attributes:
        genes: all genes the network predicts, the union of the panels, (G,).
        panels: named lists of genes: `mean<n>` (highest mean of y; the paper's) and `hvg<n>` (highly variable).
        mean, std: mean and standard deviation of y = log1p CP10k over the training units, (G,).
        depth_per_um2: mean counts of all genes per µm² over the training units: what size factor 1 means.
        unit_sizes_um: sizes of the units trained on.
        min_total: units with fewer counts were left out (55 µm and above).
        training: the training slides, `{"section": .., "patient": ..}`.
        split_by: how the data set was split.
        transcriptome: `whole`, or `panel` where few genes were measured (then y is panel-normalised).
    """

    genes: list[str]
    panels: dict[str, list[str]]
    mean: list[float]
    std: list[float]
    depth_per_um2: float
    unit_sizes_um: list[float]
    min_total: float
    training: list[dict[str, str]]
    split_by: str = "patient"
    transcriptome: str = "whole"
    extra: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._units: list[Units] = []

    def __len__(self) -> int:
        return len(self.genes)

    def shares_patients(self, records: Sequence[Mapping[str, Any]]) -> bool:
        """Whether any record's tissue comes from a patient that was trained on; unknown patients count as shared."""
        patients = {str(r.get("patient", "unknown")) for r in records}
        known = {slide["patient"] for slide in self.training}
        return "unknown" in patients | known or bool(patients & known)

    @property
    def main(self) -> str:
        """Name of the panel that headline figures are about."""
        return next(iter(self.panels))

    def refuse_unknown(self, genes: Sequence[str], file: str | Path) -> None:
        """Refuse genes that the panel, which is listed in `file`, does not hold.

        Raises:
            InputError: if there is one.
        """
        known = set(self.genes)
        unknown = [gene for gene in genes if gene not in known]
        if unknown:
            raise InputError(
                f"The model does not predict {', '.join(unknown[:5])}.{did_you_mean(unknown[0], self.genes)} Its "
                f"{len(self)} genes are listed in {file}."
            )

    def index(self, panel: str) -> np.ndarray:
        """Positions of a named panel's genes among `genes`.

        Raises:
            InputError: if it names others, so that panel.json is damaged.
        """
        place = {g: i for i, g in enumerate(self.genes)}
        unknown = [g for g in self.panels[panel] if g not in place]
        if unknown:
            raise InputError(f'The panel "{panel}" of panel.json names {unknown[0]}, which is not among its genes.')
        return np.array([place[g] for g in self.panels[panel]])

    @cached_property
    def _rates(self) -> np.ndarray:
        """Counts per µm² at size factor 1, genes outside the panel last, (U, G + 1).

        Of the training units; those below 55 µm, which hold little but noise, are summed over squares of 55 µm.
        """
        rows = []
        for units in self._units:
            counts = units.counts_of(self.genes)
            counts = np.column_stack([counts, np.maximum(units.total - counts.sum(1), 0)])
            depth, area_um2 = units.total.mean() / units.area_um2, np.full(len(units), units.area_um2)
            if units.size_um < LARGE_UNIT_UM and units.mpp is not None:
                _, cell, n = squares_at(np.floor(units.centers_px * units.mpp / LARGE_UNIT_UM).astype(np.int64))
                members = sp.csr_matrix((np.ones(len(units)), (cell, np.arange(len(units)))))
                keep = np.flatnonzero(n >= np.median(n) / 2)
                counts, area_um2 = (members @ counts)[keep], (n * units.area_um2)[keep]
            rows.append(counts / area_um2[:, None] * (self.depth_per_um2 / depth))
        return np.concatenate(rows)

    def loadings(self, n_programs: int, seed: int = 0) -> np.ndarray:
        """Loadings of a non-negative factorisation of the training units' rates, (G + 1, n_programs) per µm².

        Each program's mean activity over the training units is 1, so a network that says 1 everywhere predicts
        the mean rate. Lee & Seung, "Learning the parts of objects by non-negative matrix factorization", 1999.

        Raises:
            InputError: if there are fewer training units than programs, or the panel was read from a file.
        """
        from sklearn.decomposition import NMF

        self._check_trained()
        rates = self._rates
        _check_enough(rates, n_programs, "programs", "n_programs")
        mean = np.maximum(rates.mean(0), 1e-12)
        scale = np.sqrt(mean)  # stabilises the variance, or the most abundant genes take every program
        model = NMF(n_programs, init="nndsvda", random_state=seed, max_iter=400, tol=1e-3)
        activity = model.fit_transform(rates / scale)
        loadings = (model.components_ * activity.mean(0)[:, None] * scale).T + 1e-3 * mean[:, None] / n_programs
        return loadings * (mean / loadings.sum(1))[:, None]

    def components(self, n_components: int, seed: int = 0) -> np.ndarray:
        """Principal components of (y - mean) / std over the training units, each slide's mean taken off.

        Scaled so that a component's activity has variance 1, (G, n_components).

        Raises:
            InputError: if there are fewer training units or genes than components, or the panel was read from a file.
        """
        from sklearn.decomposition import PCA

        self._check_trained()
        slides = [log1p_cp10k(u.counts_of(self.genes), u.total) / np.asarray(self.std) for u in self._units]
        y = np.concatenate([y - y.mean(0) for y in slides])
        _check_enough(y, n_components, "components", "head_components")
        model = PCA(n_components, svd_solver="randomized", random_state=seed).fit(y)
        return (model.components_ * np.sqrt(model.explained_variance_)[:, None]).T

    def statistics(self, n_programs: int | None = None, n_components: int | None = None) -> dict[str, np.ndarray]:
        """What a head is initialised with: `mean`, `std` and, where asked for, `loadings` and `components`."""
        stats = {"mean": np.asarray(self.mean, np.float32), "std": np.asarray(self.std, np.float32)}
        if n_programs:
            stats["loadings"] = self.loadings(n_programs).astype(np.float32)
        if n_components:
            stats["components"] = self.components(n_components).astype(np.float32)
        return stats

    def _check_trained(self) -> None:
        if not self._units:
            raise InputError("A panel read from a file has no training units to factorise; fit it on the data set.")

    def save(self, path: str | Path, **about: Any) -> None:
        """Write `panel.json`; `about` (working mpp, head, ...) goes beside the genes.

        The slides' `stain` is added to that of the panel that this one goes on from.
        """
        versions = {"pixnet": bundle_version()}
        for package in ("torch", "monai", "numpy", "anndata"):
            try:
                versions[package] = version(package)
            except PackageNotFoundError:
                versions[package] = "source"
        content = {**self.extra, **asdict(self), **about, "versions": versions}
        del content["extra"]
        if "stain" in self.extra and "stain" in about:
            earlier = self.extra["stain"]
            content["stain"] = [*earlier, *(stain for stain in about["stain"] if stain not in earlier)]
        write_json(path, content)


def _check_enough(table: np.ndarray, n: int, what: str, key: str) -> None:
    if min(table.shape) < n:
        n_units, n_genes = table.shape
        raise InputError(f"{n_units} training units of {n_genes} genes cannot start {n} {what}; lower {key}.")


def load_units(record: Mapping[str, Any], sizes_um: Sequence[float] | None = None) -> list[Units]:
    """Read a record's units of the sizes asked for; the coarsest size it has where none is named.

    A size that it lacks is summed from square bins whose side divides it (`sum_bins`), and left out if there are none.

    Raises:
        InputError: if the record has no units, or none of that size.
    """
    labels = record.get("label") or []
    labels = [labels] if isinstance(labels, str) else list(labels)
    if not labels:
        raise InputError(f'{record.get("image")} has no "label": name the .h5ad of its measured units in dataset.json.')
    lazy = [read_lazy_bins(label, sizes_um) for label in labels]
    found = [read_units(label) if bins is None else bins for label, bins in zip(labels, lazy, strict=True)]
    if record.get("block") is not None:
        found = [units.take(in_block(record, units)) for units in found]
    if sizes_um is None:
        coarsest = max(u.size_um for u in found)
        return [u for u in found if u.size_um == coarsest]
    chosen: list[Units] = []
    for size in sizes_um:
        measured = [u for u in found if np.isclose(u.size_um, size)]
        chosen += measured or summed_to(size, found)
    if not chosen:
        have, asked = (", ".join(f"{size:g}" for size in sizes) for sizes in ([u.size_um for u in found], sizes_um))
        raise InputError(
            f"{record['image']} has no units of {asked} µm; it has {have} µm, and no bins of a known mpp whose side "
            "divides a size that is asked for. Coarser cells of spots are scored by --scales-um."
        )
    return chosen


def in_block(record: Mapping[str, Any], units: Units) -> np.ndarray:
    """Which units are the record's, bool (U,): of a slide that is split in space, those of its rectangle."""
    if record.get("block") is None:
        return np.ones(len(units), bool)
    low, high = np.array(record["block"][:2]), np.array(record["block"][2:])
    return np.all((units.centers_px >= low) & (units.centers_px < high), axis=1)


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
        n_mean: genes with the highest mean of y.
        n_hvg: genes with the highest variance of Pearson residuals, averaged over slides.
        min_total: units below this many counts are left out (55 µm and above).
        unit_sizes_um: unit sizes to use; the coarsest of each slide by default.

    Raises:
        InputError: if hardly a gene is shared by all training slides, or no unit has enough counts.
    """
    if not records:
        raise InputError('The data set has no training slides: list some under "training" in its dataset.json.')
    measured = [u for r in records for u in load_units(r, unit_sizes_um)]
    for units in measured:
        units.check_counts()
    everything = [u.take(eligible(u, min_total)) for u in measured]
    genes = [str(g) for g in everything[0].genes]
    for units in everything[1:]:
        present = set(units.genes)
        genes = [g for g in genes if g in present]
    fewest = min(everything, key=lambda units: len(units.genes))
    if len(genes) < MIN_MEASURED * len(fewest.genes) or not genes:
        names = ", ".join(u.name for u in everything[:3])
        shared = f"Only {len(genes)} of the {len(fewest.genes)} genes of {fewest.name} are" if genes else "No gene is"
        raise InputError(f"{shared} shared by all training slides ({names}, ...). Do all use symbols, or all ids?")
    most = max(everything, key=lambda units: len(units.genes))
    if len(genes) < len(most.genes):
        logger.info(
            "PixNet learns from the %d genes that all training slides measured; %s has %d, %s %d.",
            len(genes),
            most.name,
            len(most.genes),
            fewest.name,
            len(fewest.genes),
        )
    if not any(len(u) for u in everything):
        raise InputError(
            f"No training unit on tissue has {min_total:g} counts or more. Lower min_total, or check the counts."
        )
    coarsest = max(u.size_um for u in everything)
    if coarsest < LARGE_UNIT_UM and all(u.shape == "square" and u.mpp for u in everything):
        enough = math.ceil(LARGE_UNIT_UM / coarsest) * coarsest
        logger.warning(
            "Bins of %g µm alone hold little but noise: unit_sizes_um=[%g] sums them to squares to train on, and any "
            "size can be predicted all the same.",
            coarsest,
            enough,
        )
    # Large units decide; small ones cannot be normalised by their own total.
    deciding = [u for u in everything if u.size_um >= LARGE_UNIT_UM and len(u)] or [u for u in everything if len(u)]
    n_units, mean, square = 0, np.zeros(len(genes)), np.zeros(len(genes))
    variability = np.zeros(len(genes))
    for units in deciding:
        counts = units.counts_of(genes)
        y = log1p_cp10k(counts, units.total).astype(np.float64)
        n_units, mean, square = n_units + len(units), mean + y.sum(0), square + (y * y).sum(0)
        variability += pearson_residuals(counts, units.total).var(0)
    mean /= n_units
    std = np.sqrt(np.maximum(square / n_units - mean**2, 0))
    by_mean = np.argsort(-mean, kind="stable")[: min(n_mean, len(genes))]
    by_variability = np.argsort(-variability, kind="stable")[: min(n_hvg, len(genes))]
    union = list(dict.fromkeys([*by_mean, *by_variability]))
    total_counts = sum(float(u.total.sum()) for u in deciding)
    total_area = sum(len(u) * u.area_um2 for u in deciding)
    panel = GenePanel(
        genes=[genes[i] for i in union],
        panels={
            f"mean{n_mean}": [genes[i] for i in by_mean],
            f"hvg{n_hvg}": [genes[i] for i in by_variability],
        },
        mean=[float(mean[i]) for i in union],
        std=[float(max(std[i], 1e-3)) for i in union],
        depth_per_um2=total_counts / total_area,
        unit_sizes_um=sorted({u.size_um for u in everything}),
        min_total=float(min_total),
        training=[_about(r) for r in records],
        split_by=str(records[0].get("split_by", "patient")),
        transcriptome=str(records[0].get("transcriptome", "whole")),
    )
    panel._units = deciding
    return panel


def load_panel(path: str | Path) -> GenePanel:
    """Read `panel.json`.

    Raises:
        InputError: if it is missing, damaged or was not written by PixNet.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(f"No trained model at {path.parent}: {path.name} is missing. Train one with `pixnet train`.")
    content = read_json(path, schema=PANEL)
    known = [f for f in GenePanel.__dataclass_fields__ if f != "extra" and f in content]
    panel = GenePanel(**{k: content.pop(k) for k in known}, extra=content)
    if len(panel.mean) != len(panel) or len(panel.std) != len(panel):
        raise InputError(f"{path} holds {len(panel)} genes, but {len(panel.mean)} means and {len(panel.std)} stds.")
    if len(set(panel.genes)) != len(panel):
        raise InputError(f"{path} names a gene twice. Copy it again.")
    return panel


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
        for units in load_units(record, unit_sizes_um):
            units.check_counts()
            units.check_panel(panel.genes, "learns")
            panel.unit_sizes_um = sorted({*panel.unit_sizes_um, units.size_um})
        slide = _about(record)
        panel.training += [] if slide in panel.training else [slide]
    return panel


def _about(record: Mapping[str, Any]) -> dict[str, str]:
    """What a panel says of a training slide."""
    return {"section": str(record.get("section", record["image"])), "patient": str(record.get("patient", "unknown"))}


def n_genes(path: str | Path, default: int = 250) -> int:
    """Number of genes of the panel at `path`; `default` where there is no trained model yet."""
    return len(load_panel(path)) if Path(path).is_file() else default
