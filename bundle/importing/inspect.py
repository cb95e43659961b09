"""What a path holds, in one screen: a data set, a folder of a known layout, a slide, units, a run or a prediction."""

from __future__ import annotations

import logging
import math
import re
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import anndata as ad
import numpy as np
import scipy.sparse as sp

from ..data.binning import bin_to
from ..data.manifest import SPLITS, patient_of, read_manifest, slide_name
from ..data.normalisation import LARGE_UNIT_UM
from ..data.opening import SlideOpener
from ..data.panel import load_panel
from ..data.read_units import read_units
from ..data.units import Units
from ..errors import InputError, user_message
from ..files.atomic import read_state
from ..metrics.ceiling import thinning_ceiling
from ..readers.pictures import is_plain_picture, picture_size
from ..readers.registry import find_samples, reader_of
from ..readers.sample import Options, Sample
from .prepare import preparation_tools

__all__ = ["describe", "inspect"]

logger = logging.getLogger(__name__)

#: How an import says the scale, and where it comes from.
_SCALE = re.compile(r"\S+ µm per pixel \((.*)\)\.")
#: Genes and units that the reliability is estimated from.
_GENES, _UNITS = 250, 3000


def inspect(
    path: str | Path,
    *,
    as_: str | None = None,
    options: Options | None = None,
    reader: SlideOpener | None = None,
    tissue: Callable[..., Any] | None = None,
) -> dict[str, Any]:
    """Say what a path holds.

    Args:
        path: a data set, a folder or file of a known layout, a slide, a file of units, a run folder or a prediction.
        as_: the layout, where its files do not show it.
        options: what the user says about the samples of a layout.
        reader: opens slides; that of `configs/inference.json` by default.
        tissue: finds tissue; that of `configs/inference.json` by default.

    Returns:
        For JSON: `kind` (`data set`, `layout`, `slide`, `units`, `run` or `prediction`), `path`, `doubts`, and what
        belongs to the kind. `describe` puts it into words.

    Raises:
        InputError: if it is nothing that PixNet knows.
    """
    path = Path(path)
    if not path.exists():
        raise InputError(f"There is no file or folder {path}. Check the path.")
    if as_ is None:
        if (path / "dataset.json").is_file() or path.name == "dataset.json":
            return _data_set(path if path.is_dir() else path.parent)
        if (path / "models" / "panel.json").is_file():
            return _run(path)
        if path.suffix in (".h5ad", ".zarr") and (found := _anndata(path)) is not None:
            return found
        if path.is_file() and (found := _slide(path, reader, tissue)) is not None:
            return found
    return _layout(path, as_, options or Options())


def _data_set(root: Path) -> dict[str, Any]:
    manifest = read_manifest(root)
    slides: list[dict[str, Any]] = []
    doubts: list[str] = []
    shared: set[str] | None = None
    every: set[str] = set()
    for split in SPLITS:
        for record in manifest[split]:
            name = slide_name(record)
            state = read_state(root / "checks" / f"{record.get('section', name)}.json")
            doubts += [f"{name}: {doubt}" for doubt in state.get("doubts", [])]
            units = []
            for label in record["label"]:
                held = read_units(label)
                units.append(_of_units(held))
                shared = set(held.genes.tolist()) if shared is None else shared & set(held.genes.tolist())
                every |= set(held.genes.tolist())
            if record.get("patient") is None:
                doubts.append(f"{name}: its patient is not named, so it counts as a patient of its own.")
            where = [match[1] for fact in state.get("found", []) if (match := _SCALE.fullmatch(fact))]
            slides.append(
                {
                    "name": name,
                    "split": split,
                    "patient": patient_of(record),
                    "mpp": record.get("mpp"),
                    "mpp_from": where[0] if where else "dataset.json" if "mpp" in record else "the slide's tags",
                    "units": units,
                }
            )
    patients = sorted({slide["patient"] for slide in slides})
    if not manifest["test"]:
        doubts.append("There is no test split, so nothing can be scored in the end.")
    if manifest.get("split_by", "patient") != "patient":
        doubts.append(f"It is split by {manifest['split_by']}: test slides share patients with training.")
    if shared is not None and len(shared) < 0.5 * len(every):
        doubts.append(f"Only {len(shared):,} of {len(every):,} genes are measured on all slides.")
    return {
        "kind": "data set",
        "path": str(root),
        "split_by": manifest.get("split_by", "patient"),
        "transcriptome": manifest.get("transcriptome", "whole"),
        "slides": slides,
        "patients": patients,
        "genes_shared": len(shared or ()),
        "genes": len(every),
        "doubts": doubts,
    }


def _of_units(units: Units) -> dict[str, Any]:
    """What is known of units of one size."""
    used = units.take(units.in_tissue) if units.in_tissue.any() else units
    return {
        "shape": units.shape,
        "size_um": units.size_um,
        "units": len(units),
        "in_tissue": int(units.in_tissue.sum()),
        "genes": len(units.genes),
        "counts_per_unit": float(np.median(used.total)) if len(used) else 0.0,
        "reliability": _reliability(used),
    }


def _reliability(units: Units) -> float | None:
    """Mean ceiling of PCC by count splitting, over the most expressed genes; None for too few units.

    Fine bins are summed to squares of 55 µm or a little more.
    """
    if units.size_um < LARGE_UNIT_UM and units.shape == "square" and units.mpp is not None:
        units = bin_to(units, math.ceil(LARGE_UNIT_UM / units.size_um) * units.size_um)
    total = units.total
    kept = np.flatnonzero(total > 0)
    if len(kept) < 30:
        return None
    kept = np.sort(np.random.default_rng(0).choice(kept, min(len(kept), _UNITS), replace=False))
    counts = units.counts[kept]
    genes = np.argsort(-np.asarray(counts.sum(axis=0)).ravel())[:_GENES]
    values = counts[:, genes].toarray()
    ceiling = thinning_ceiling(values, total[kept], "log1p_cp10k", draws=5)
    return float(np.nanmean(ceiling)) if np.isfinite(ceiling).any() else None


def _run(path: Path) -> dict[str, Any]:
    panel = load_panel(path / "models" / "panel.json")
    scores = {}
    for file in sorted((path / "evaluation").glob("*.json")):
        state = read_state(file)
        native = state.get("scales", {}).get("native", {})
        scores[file.stem] = {
            key: native.get(key) for key in ("PCC@M", "ceiling@M", "size_um", "units") if key in native
        }
    doubts = (
        [] if (path / "models" / "model.pt").is_file() else ["Training did not finish: models/model.pt is missing."]
    )
    return {
        "kind": "run",
        "path": str(path),
        "genes": len(panel),
        "panels": {name: len(genes) for name, genes in panel.panels.items()},
        "unit_sizes_um": panel.unit_sizes_um,
        "slides": panel.training,
        "patients": sorted({slide["patient"] for slide in panel.training}),
        "split_by": panel.split_by,
        "transcriptome": panel.transcriptome,
        "scores": scores,
        "doubts": doubts,
    }


def _anndata(path: Path) -> dict[str, Any] | None:
    """A prediction or measured units; None if it is neither, such as another program's AnnData."""
    try:
        adata = ad.read_h5ad(path, backed="r") if path.suffix == ".h5ad" else ad.read_zarr(path)
    except Exception:  # what reads its layout will say what is wrong with it
        return None
    about = adata.uns.get("pixnet")
    if isinstance(about, Mapping):
        unit = adata.uns.get("unit", {})
        return {
            "kind": "prediction",
            "path": str(path),
            "units": adata.n_obs,
            "genes": adata.n_vars,
            "shape": str(unit.get("shape", "")),
            "size_um": _plain(unit.get("size_um")),
            **{key: _plain(about[key]) for key in ("mpp", "effective_resolution_um", "version") if key in about},
            "doubts": [str(warning) for warning in np.atleast_1d(_plain(about.get("warnings", [])))],
        }
    if "unit" not in adata.uns or "spatial" not in adata.obsm:
        return None
    try:
        units = read_units(path)
    except InputError:
        return None
    return {"kind": "units", "path": str(path), "mpp": units.mpp, **_of_units(units), "doubts": []}


def _plain(value: Any) -> Any:
    return value.tolist() if isinstance(value, (np.ndarray, np.generic)) else value


def _slide(path: Path, reader: SlideOpener | None, tissue: Callable[..., Any] | None) -> dict[str, Any] | None:
    """A slide or plain picture; None if it is neither."""
    if is_plain_picture(path):
        width, height = picture_size(path)
        doubts = [f"{path.name} is a plain picture; PixNet writes it anew as a tiled pyramid, and needs its --mpp."]
        return {"kind": "slide", "path": str(path), "size_px": [width, height], "mpp": None, "doubts": doubts}
    if path.suffix.lower() not in (".tif", ".tiff", ".btf", ".svs", ".ndpi", ".mrxs", ".scn", ".bif", ".vms"):
        return None
    tools = preparation_tools(reader, tissue)
    try:
        slide = tools.reader.open(str(path))
    except Exception as error:
        sentence = user_message(error)
        if sentence is None:
            raise
        return {"kind": "slide", "path": str(path), "mpp": None, "doubts": [sentence]}
    picture, mpp = slide.thumbnail(1024)
    mask = np.asarray(tools.tissue(np.ascontiguousarray(picture.transpose(2, 0, 1)), mpp))
    width, height = slide.level_dimensions[0]
    return {
        "kind": "slide",
        "path": str(path),
        "backend": slide.backend,
        "size_px": [width, height],
        "size_mm": [round(width * slide.mpp / 1000, 2), round(height * slide.mpp / 1000, 2)],
        "levels": len(slide.level_dimensions),
        "mpp": slide.mpp,
        "tissue": float(mask.mean()),
        "doubts": [str(warning) for warning in getattr(slide, "warnings", [])],
    }


def _layout(path: Path, as_: str | None, options: Options) -> dict[str, Any]:
    layout, places = find_samples(path, as_, options)
    samples: list[dict[str, Any]] = []
    doubts: list[str] = []
    shared: set[str] | None = None
    for place in places:
        try:
            sample = reader_of(layout).read(place, options)
            samples.append(_of_sample(sample))
        except Exception as error:
            sentence = user_message(error)
            if sentence is None:
                raise
            samples.append({"name": place.name, "patient": place.patient})
            doubts.append(sentence if sentence.startswith(place.name) else f"{place.name}: {sentence}")
            continue
        samples[-1]["patient"] = options.patient or place.patient
        doubts += [f"{place.name}: {doubt}" for doubt in sample.doubts]
        for table in sample.tables:
            shared = set(table.genes) if shared is None else shared & set(table.genes)
    return {
        "kind": "layout",
        "path": str(path),
        "layout": layout,
        "title": reader_of(layout).TITLE,
        "slides": samples,
        "patients": sorted({s["patient"] for s in samples if s.get("patient")}),
        "genes_shared": len(shared or ()),
        "doubts": doubts,
    }


def _of_sample(sample: Sample) -> dict[str, Any]:
    units = []
    for table in sample.tables:
        totals = _totals(table.blocks())
        used = totals if table.in_tissue is None else totals[table.in_tissue]
        units.append(
            {
                "name": table.name,
                "shape": table.shape,
                "size_um": table.size_um,
                "units": len(table),
                "genes": len(set(table.genes)),
                "counts_per_unit": float(np.median(used)) if len(used) else 0.0,
            }
        )
    return {
        "name": sample.name,
        "image": None if sample.image is None else str(sample.image),
        "mpp": sample.mpp,
        "mpp_from": sample.mpp_from if sample.mpp else "the picture's tags",
        "units": units,
        "found": sample.found,
    }


def _totals(blocks: Iterable[sp.csr_matrix]) -> np.ndarray:
    return np.concatenate([np.zeros(0), *(np.asarray(block.sum(axis=1)).ravel() for block in blocks)])


def describe(found: Mapping[str, Any]) -> str:
    """What `inspect` found, in words, for one screen."""
    lines = [f"{found['path']}: {_kind_in_words(found)}"]
    for slide in found.get("slides", []):
        if "section" in slide:  # of a run
            lines.append(f"  trained on {slide['section']} (patient {slide['patient']})")
            continue
        split = f" [{slide['split']}]" if "split" in slide else ""
        mpp = f", {slide['mpp']:.4g} µm per pixel" if slide.get("mpp") else ""
        why = f" ({slide['mpp_from'].rstrip('.')})" if slide.get("mpp_from") else ""
        lines.append(f"  {slide['name']}{split}: patient {slide.get('patient') or 'not named'}{mpp}{why}")
        lines += [f"    {_units_in_words(units)}" for units in slide.get("units", [])]
    for name, scores in found.get("scores", {}).items():
        figures = ", ".join(f"{key} {value:.3g}" for key, value in scores.items() if value is not None)
        lines.append(f"  {name}: {figures}")
    if found["doubts"]:
        lines.append("Doubtful:")
        lines += [f"  - {doubt}" for doubt in found["doubts"]]
    else:
        lines.append("Nothing is doubtful.")
    return "\n".join(lines)


def _kind_in_words(found: Mapping[str, Any]) -> str:
    kind = found["kind"]
    if kind == "slide":
        size = found.get("size_px")
        mpp = f", {found['mpp']:.4g} µm per pixel" if found.get("mpp") else ", scale not known"
        return f"a slide{f' of {size[0]} x {size[1]} px' if size else ''}{mpp}" + (
            f", {found['tissue']:.0%} tissue, read by {found['backend']}" if "tissue" in found else ""
        )
    if kind == "prediction":
        units = f"{found['units']:,} units ({found['shape']} {found['size_um']} µm)"
        return f"a prediction of {found['genes']:,} genes for {units}"
    if kind == "units":
        return f"measured units; {_units_in_words(found)}"
    if kind == "run":
        sizes = ", ".join(f"{size:g}" for size in found["unit_sizes_um"])
        return f"a trained run for {found['genes']:,} genes, units of {sizes} µm, {len(found['patients'])} patients"
    n, patients = len(found["slides"]), len(found["patients"])
    slides = f"{n} slide{'s' * (n != 1)} of {patients or 'unnamed'} patient{'s' * (patients != 1)}"
    genes = f", {found['genes_shared']:,} genes on all" if found["genes_shared"] else ""
    if kind == "layout":
        return f"{found['title']}; {slides}{genes}. Import it: pixnet prepare {found['path']} OUT"
    return f"a data set split by {found['split_by']}; {slides}{genes}"


def _units_in_words(units: Mapping[str, Any]) -> str:
    reliability = units.get("reliability")
    ceiling = "" if reliability is None else f", reliability {reliability:.2f} (highest PCC that counting noise allows)"
    return (
        f"{units['units']:,} units, {units['shape']} {units['size_um']:.4g} µm, {units['genes']:,} genes, median "
        f"{units['counts_per_unit']:,.0f} counts{ceiling}"
    )
