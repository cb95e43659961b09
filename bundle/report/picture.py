"""One picture of a run for a page or a talk: the slide, its measured units and the dense map of a gene."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import anndata as ad
import numpy as np

from ..data.manifest import read_split
from ..errors import InputError, require_extra
from ..files.atomic import replacing
from .genes import landmarks
from .raster import make_canvas
from .run import read_run
from .slides import read_picture, read_slide_maps

__all__ = ["write_picture"]


def write_picture(
    run: str | Path, bins: str | Path, path: str | Path, gene: str | None = None, title: str | None = None
) -> Path:
    """Write the picture as JPEG: H&E, the measured units and the predicted bins in the same colours.

    Args:
        run: a run folder with an evaluation whose predictions were kept.
        bins: a prediction of bins of the same slide, `.h5ad`.
        path: the `.jpg` to write.
        gene: which gene; the one predicted best by default.
        title: what to call it, where the data set has identifiers; the gene by default.

    Raises:
        InputError: if the run has no such evaluation, or the files do not hold the gene.
    """
    require_extra("matplotlib", "The picture", "report")
    from matplotlib import rc_context
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    evaluation = read_run(run).evaluations[0]
    gene = gene or next(iter(landmarks(evaluation).values()), None)
    if gene is None:
        raise InputError(f"{run}: {evaluation.name}_genes.csv, which says what genes there are, is missing.")
    records = read_split(evaluation.about["dataset"], str(evaluation.about["split"]))
    record = next(r for r in records if r["section"] in evaluation.about["per_slide"])
    section = record["section"]
    figures = next(iter(evaluation.about["per_slide"][section].values()))
    maps = read_slide_maps(record, evaluation.predictions / f"{section}.h5ad", figures["size_um"], [gene])
    fine = ad.read_h5ad(bins)
    if gene not in fine.var_names or fine.uns["unit"]["shape"] != "square":
        raise InputError(f"{bins} does not hold square bins with {gene}.")
    units, places = maps.units, fine.obsm["spatial"]
    size_um = float(fine.uns["unit"]["size_um"])
    corners = np.concatenate([units.centers_px, places])
    margin_px = units.size_um / maps.mpp
    part = (corners.min(0) - margin_px, corners.max(0) + margin_px)
    picture = read_picture(record["label"]) or ()
    look: dict[str, Any] = {"max_side": 600, "within_px": part}
    spots = make_canvas(units.centers_px, units.size_um / maps.mpp, units.shape, *picture, **look)
    dense = make_canvas(places, size_um / maps.mpp, "square", *picture, **look)
    low, high = np.quantile(np.concatenate([maps.measured[gene], maps.predicted[gene]]), [0.02, 0.98])
    measured = spots.paint(maps.measured[gene], low, high)
    predicted = dense.paint(np.asarray(fine[:, gene].X).ravel(), low, high)
    name, kind = title or gene, "spots" if units.shape == "circle" else "units"
    panels = [
        ("H&E slide\n", spots.picture),
        (f"{name}, measured\n{len(units):,} {kind} of {units.size_um:g} µm", measured),
        (f"{name}, predicted from the slide\n{len(fine):,} bins of {size_um:g} µm", predicted),
    ]
    height, width = spots.picture.shape[:2]
    with rc_context({"font.size": 10}):
        figure = Figure(figsize=(12, 4 * height / width + 0.7), layout="constrained")
        FigureCanvasAgg(figure)
        for axis, (text, image) in zip(figure.subplots(1, len(panels)), panels, strict=True):
            axis.imshow(image)
            axis.set_title(text)
            axis.axis("off")
        with replacing(path) as temporary:
            figure.savefig(temporary, dpi=130, format="jpeg", pil_kwargs={"quality": 85, "optimize": True})
    return Path(path)
