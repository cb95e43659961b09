"""The gene panel: what a model predicts, chosen and standardised on training slides only."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import InputError, did_you_mean
from ..files.atomic import write_json
from ..files.reading import read_json
from ..files.schemas import PANEL
from ..version import bundle_version
from .normalisation import passes_quality_control
from .slide_units import load_units
from .units import Units

__all__ = ["GenePanel", "load_panel", "n_genes"]


@dataclass
class GenePanel:
    """Genes with the training statistics that predictions are expressed in.

    Attributes:
        genes: all genes the network predicts, the union of the panels, (G,).
        panels: named lists of genes: `mean<n>` (highest mean log1p CP10k; the paper's) and `hvg<n>` (highly variable).
        mean, std: mean and standard deviation of log1p CP10k over the training units, (G,).
        depth_per_um2: mean counts of all genes per µm² over the training units: what size factor 1 means.
        unit_sizes_um: sizes of the units trained on.
        min_total: units with fewer counts were left out (55 µm and above).
        training: the training slides, `{"section": .., "patient": ..}`.
        split_by: how the data set was split.
        transcriptome: `whole`, or `panel` for a targeted panel (then log1p CP10k is of the genes on it).
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
        self._read: dict[Any, list[Units]] = {}
        self._fitted_on: list[Units] = []

    def __len__(self) -> int:
        return len(self.genes)

    def shares_patients(self, records: Sequence[Mapping[str, Any]]) -> bool:
        """Whether any record's tissue comes from a patient that was trained on; unknown patients count as shared."""
        return bool(self.seen_patients(records))

    def seen_patients(self, records: Sequence[Mapping[str, Any]]) -> list[str]:
        """The patients of some records that were trained on, or may have been since either side is `unknown`."""
        trained = {slide["patient"] for slide in self.training}
        patients = {str(r.get("patient", "unknown")) for r in records}
        return sorted(p for p in patients if p in trained or "unknown" in {p, *trained})

    def keep_units(self, record: Mapping[str, Any], sizes_um: Sequence[float] | None, units: list[Units]) -> None:
        """Keep what was read of a training record, for `units_of`."""
        self._read[_key(record, sizes_um)] = units

    def units_of(self, record: Mapping[str, Any], sizes_um: Sequence[float] | None = None) -> list[Units]:
        """A record's units: those that the panel was fitted on where it was, so that each file is read once.

        Args:
            record: of a slide.
            sizes_um: see `bundle.data.slide_units.load_units`.
        """
        known = self._read.get(_key(record, sizes_um))
        return load_units(record, sizes_um) if known is None else known

    def training_units(self) -> Iterator[Units]:
        """The units that the statistics are of, slide by slide.

        Raises:
            InputError: if the panel was read from a file.
        """
        if not self._fitted_on:
            raise InputError("A panel read from a file has no training units to factorise; fit it on the data set.")
        for units in self._fitted_on:
            yield units.take(passes_quality_control(units, self.min_total))

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

    def save(self, path: str | Path, **about: Any) -> None:
        """Write `panel.json`; `about` (working mpp, head, ...) is written with the genes.

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


def _key(record: Mapping[str, Any], sizes_um: Sequence[float] | None) -> Any:
    """What tells the units of one record and sizes from those of another."""
    labels, sizes = record.get("label") or [], None if sizes_um is None else tuple(sizes_um)
    return (str(record["image"]), *([labels] if isinstance(labels, str) else labels)), str(record.get("block")), sizes


def load_panel(path: str | Path) -> GenePanel:
    """Read the gene panel of a trained model.

    Args:
        path: the run's `models/panel.json`.

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


def n_genes(path: str | Path, default: int = 250) -> int:
    """Number of genes of the panel at `path`; `default` where there is no trained model yet."""
    return len(load_panel(path)) if Path(path).is_file() else default
