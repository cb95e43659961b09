"""One picture of a run for a page or a slide: tissue, measurement, prediction at the same units and in fine bins."""

from __future__ import annotations

from pathlib import Path

import anndata as ad
import numpy as np

from ..data.manifest import read_split
from ..errors import InputError
from ..files.atomic import replacing
from .genes import landmarks
from .raster import make_canvas
from .run import read_run
from .slides import read_picture, read_slide_maps

__all__ = ["write_picture"]


def write_picture(run: str | Path, bins: str | Path, path: str | Path, gene: str | None = None) -> Path:
    """Write the picture as JPEG.

    Args:
        run: a run folder with an evaluation whose predictions were kept.
        bins: a prediction of bins of the same slide, `.h5ad`.
        path: the `.jpg` to write.
        gene: which gene; the one predicted best by default.

    Raises:
        InputError: if the run has no such evaluation, or the files do not hold the gene.
    """
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
    picture = read_picture(record["label"]) or ()
    spots = make_canvas(maps.units.centers_px, maps.units.size_um / maps.mpp, maps.units.shape, *picture)
    size_um = float(fine.uns["unit"]["size_um"])
    dense = make_canvas(fine.obsm["spatial"], size_um / maps.mpp, "square", *picture)
    y = np.asarray(fine[:, gene].X).ravel()
    low, high = np.quantile(np.concatenate([maps.measured[gene], maps.predicted[gene]]), [0.01, 0.99])
    panels = [
        ("H&E", spots.picture),
        (f"{gene}, measured\n{maps.units.size_um:g} µm units", spots.paint(maps.measured[gene], low, high)),
        (f"{gene}, predicted\nPCC {maps.pcc(gene):.2f}", spots.paint(maps.predicted[gene], low, high)),
        (f"{gene}, predicted\n{size_um:g} µm bins", dense.paint(y, low, high)),
    ]
    with rc_context({"font.size": 9}):
        figure = Figure(figsize=(10, 3.8), layout="constrained")
        FigureCanvasAgg(figure)
        for axis, (title, image) in zip(figure.subplots(1, len(panels)), panels, strict=True):
            axis.imshow(image)
            axis.set_title(title)
            axis.axis("off")
        with replacing(path) as temporary:
            figure.savefig(temporary, dpi=120, format="jpeg", pil_kwargs={"quality": 85, "optimize": True})
    return Path(path)
