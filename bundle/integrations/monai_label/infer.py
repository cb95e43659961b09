"""Carry out one request: predict what it names on a slide, as one file."""

from __future__ import annotations

import logging
import os
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import anndata as ad
import numpy as np
from monai.bundle import ConfigParser

from ...config.merge import merge_config
from ...config.root import importable_root
from ...data.manifest import slide_name
from ...data.opening import OpenSlide
from ...inference import model_sha256
from ...workflows.inferring import predict
from ...writers.geojson import write_polygons
from .contours import contour_polygons, grid_of
from .request import SlideRequest

__all__ = ["infer"]

#: Contours run at this quantile of the predicted values, if the request gives no threshold.
_UPPER = 0.75

Features = list[tuple[Sequence[np.ndarray], dict[str, Any]]]


def infer(
    slide: Path,
    run: Path,
    request: SlideRequest,
    settings: Mapping[str, Any] | None = None,
    trust: bool = False,
) -> tuple[Path, dict[str, Any]]:
    """Predict, and write the result to a temporary file, which the caller removes.

    Args:
        slide: the slide.
        run: the run folder of the model.
        request: the checked options.
        settings: further keys of `configs/inference.json`, such as `device`.
        trust: whether the model may run code of its own.

    Returns:
        The file, a GeoJSON or the map as `.nii.gz`, and a summary of it.

    Raises:
        InputError: if the slide, the request or the run is not usable.
    """
    opened = _open(slide)
    request.check_extent(opened)
    name = slide_name({"image": slide.name})
    ending = ".nii.gz" if request.result == "map" else ".geojson"
    about: dict[str, Any] = {
        "slide": name,
        "result": request.result,
        "genes": list(request.genes),
        "values": "log1p of counts per 10,000, predicted",
        "slide_mpp": opened.mpp,
        "region_px": request.region_px,
        "run": run.name,
        "model_sha256": model_sha256(run / "models" / "model.pt"),
    }
    keys = {**(settings or {}), "genes": list(request.genes)}
    if request.region_px is not None:
        keys["region_px"] = list(request.region_px)
    handle, out = tempfile.mkstemp(ending, f"{name}_{request.result}_")
    os.close(handle)
    try:
        with tempfile.TemporaryDirectory() as scratch, _logging_kept():
            if request.result == "map":
                predict(slide, None, run, {**keys, "nifti": out}, trust)
                return Path(out), about
            units = Path(scratch) / f"{name}.h5ad"
            predict(slide, units, run, {**keys, "bin_um": request.unit_um}, trust)
            adata = ad.read_h5ad(units)
        about |= {"unit_um": request.unit_um, "units_found": adata.n_obs}
        about["warnings"] = [str(warning) for warning in adata.uns["pixnet"]["warnings"]]
        if "pcc_val" in adata.var:  # the genes' correlation on the validation slides
            known = adata.var["pcc_val"].dropna()
            about["pcc_val"] = {gene: round(float(value), 3) for gene, value in known.items()}
        write = _contours if request.result == "contours" else _units
        features, more = write(adata, request, opened)
        write_polygons(out, features, about | more)
        return Path(out), about | more
    except BaseException:
        os.unlink(out)
        raise


def _units(adata: ad.AnnData, request: SlideRequest, slide: OpenSlide) -> tuple[Features, dict[str, Any]]:
    """Squares with their genes as measurements."""
    values = np.asarray(adata.X, dtype=np.float64)
    kept = np.arange(len(values))
    if request.threshold is not None:
        kept = kept[values[:, 0] >= request.threshold]
    above = len(kept)
    if above > request.max_units:
        kept = np.sort(kept[np.argsort(-values[kept, 0], kind="stable")[: request.max_units]])
    half = request.unit_um / slide.mpp / 2
    corners = np.array([[-half, -half], [half, -half], [half, half], [-half, half], [-half, -half]])
    # The outermost units reach over the slide's edge, where no picture is.
    squares = np.clip(adata.obsm["spatial"][kept, None] + corners, 0, slide.level_dimensions[0])
    tissue = adata.obs["tissue_fraction"].to_numpy()
    features: Features = []
    for at, square in zip(kept, squares, strict=True):
        measured = {gene: round(float(v), 4) for gene, v in zip(request.genes, values[at], strict=True)}
        properties = {
            "objectType": "detection",
            "name": str(adata.obs_names[at]),
            "measurements": {**measured, "tissue_fraction": round(float(tissue[at]), 3)},
        }
        features.append(([square], properties))
    return features, {"threshold": request.threshold, "units": len(kept), "left_out_by_max_units": above - len(kept)}


def _contours(adata: ad.AnnData, request: SlideRequest, slide: OpenSlide) -> tuple[Features, dict[str, Any]]:
    """Where the gene is at least the threshold."""
    values = np.asarray(adata.X, dtype=np.float64)[:, 0]
    threshold = float(np.quantile(values, _UPPER)) if request.threshold is None else request.threshold
    picture, first = grid_of(adata.obs["array_row"].to_numpy(), adata.obs["array_col"].to_numpy(), values)
    properties = {
        "objectType": "annotation",
        "name": f"{request.genes[0]} >= {threshold:.3g}",
        "measurements": {"threshold": threshold},
    }
    centre = np.array(first) + 0.5
    unit_px = request.unit_um / slide.mpp
    features: Features = [
        ([(ring + centre) * unit_px for ring in rings], properties) for rings in contour_polygons(picture, threshold)
    ]
    return features, {"threshold": threshold, "contours": len(features)}


def _open(slide: Path) -> OpenSlide:
    config = merge_config([importable_root() / "configs" / "inference.json"], {})
    return ConfigParser(config).get_parsed_content("reader").open(str(slide))


@contextmanager
def _logging_kept() -> Iterator[None]:
    """Give the server its log back: a run of the bundle sets up its own."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    try:
        yield
    finally:
        root.handlers[:] = handlers
        root.setLevel(level)
