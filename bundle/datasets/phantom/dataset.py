"""Write a phantom data set: slides, measured units and the noise-free truth."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal, get_args

import anndata as ad
import numpy as np
import scipy.sparse as sp
import tifffile

from ...data.build_units import build_units
from ...data.manifest import write_manifest
from ...errors import InputError
from ...files.atomic import replacing
from ...files.ownership import claim
from ...writers.tiff_pyramid import write_pyramid
from .expression import Expression, Mixture
from .measure import Layout, Specimen, parse_layouts
from .stain import SlideImage

__all__ = ["Truth", "make_phantom", "make_specimens"]

Truth = Literal["none", "test", "all"]

_TRUTH = Layout("bin", 2.0, 2.0)
_log = logging.getLogger(__name__)


def make_specimens(
    *,
    slides: int = 4,
    seed: int = 0,
    size_um: float = 1500.0,
    genes: int = 100,
    mixture: Mixture = "programs",
    umi_per_um2: float = 1.0,
    blank_fraction: float = 0.2,
) -> list[Specimen]:
    """The slides of a phantom without writing them. Slide k depends on `seed` and k only, not on how many there are.

    Args:
        slides: how many.
        seed: of everything.
        size_um: side of the square slides.
        genes: measured genes, every tenth of them ambient.
        mixture: `programs`, or `free` for genes that no few programs span.
        umi_per_um2: mean counts per square micrometre of tissue, over all genes.
        blank_fraction: share of the slide that is glass; 0 is tissue to every edge.

    Raises:
        InputError: if a value is out of range.
    """
    if mixture not in get_args(Mixture):
        raise InputError(f'The phantom has no mixture "{mixture}"; choose one of {", ".join(get_args(Mixture))}.')
    for name, value, low, high in (
        ("slides", slides, 1, 10_000),
        ("seed", seed, 0, 2**32),
        ("size_um", size_um, 100, 100_000),
        ("genes", genes, 2, 50_000),
        ("umi_per_um2", umi_per_um2, 1e-6, 1e6),
        ("blank_fraction", blank_fraction, 0, 0.95),
    ):
        if not low <= value <= high:
            raise InputError(f"The phantom's {name} is {value}; choose a value from {low} to {high}.")
    expression = Expression(genes, seed, mixture, umi_per_um2)
    seeds = [int(np.random.SeedSequence([seed, k]).generate_state(1)[0]) for k in range(slides)]
    return [Specimen(expression, s, size_um, blank_fraction) for s in seeds]


def make_phantom(
    out: str | Path,
    *,
    slides: int = 4,
    seed: int = 0,
    size_um: float = 1500.0,
    mpp: float = 0.5,
    genes: int = 100,
    units: str | Sequence[Layout] = "spot:100:120,bin:16,bin:8",
    mixture: Mixture = "programs",
    umi_per_um2: float = 1.0,
    blank_fraction: float = 0.2,
    truth: Truth = "test",
    truth_um: float = 1500.0,
    progress: Callable[[str], None] = _log.info,
) -> Path:
    """Write a phantom data set; see `bundle.datasets.phantom` for what is in it.

    The last slide is the test, the one before it the validation, the others are for training; each is a patient of
    its own. Spots off the tissue are kept and marked in `in_tissue`; bins cover tissue only.

    Args:
        out: the folder to write.
        slides: how many, at least 3.
        seed: of everything: the same seed writes the same arrays.
        size_um: side of the square slides.
        mpp: micrometres per pixel.
        genes: measured genes, every tenth of them ambient.
        units: `spot:DIAMETER:PITCH` and `bin:SIDE`, separated by commas, or layouts.
        mixture: `programs`, or `free` for genes that no few programs span.
        umi_per_um2: mean counts per square micrometre of tissue, over all genes.
        blank_fraction: share of the slide that is glass; 0 is tissue to every edge.
        truth: whose noise-free truth to write, `none`, `test` or `all` slides.
        truth_um: side of the central square that the truth covers at most.
        progress: called with a line for each file.

    Returns:
        `out`.

    Raises:
        InputError: if a value is out of range.
    """
    out = Path(out)
    if slides < 3:
        raise InputError(f"A phantom of {slides} slides cannot fill training, validation and test; ask for 3 or more.")
    if not (math.isfinite(mpp) and 0.1 <= mpp <= 10):
        raise InputError(f"The phantom's mpp is {mpp}; choose 0.1 to 10 micrometres per pixel.")
    if truth not in get_args(Truth):
        raise InputError(f'The phantom has no truth "{truth}"; choose one of {", ".join(get_args(Truth))}.')
    layouts = parse_layouts(units) if isinstance(units, str) else tuple(units)
    specimens = make_specimens(
        slides=slides,
        seed=seed,
        size_um=size_um,
        genes=genes,
        mixture=mixture,
        umi_per_um2=umi_per_um2,
        blank_fraction=blank_fraction,
    )
    claim(out, "phantom", ("slides", "units", "truth", "dataset.json"), {"dataset.json": _is_phantom})
    measured: dict[str, Any] = {"split_by": "patient", "training": [], "validation": [], "test": []}
    exact: dict[str, Any] = {"split_by": "patient", "training": [], "validation": [], "test": []}
    for k, specimen in enumerate(specimens):
        split = {slides - 1: "test", slides - 2: "validation"}.get(k, "training")
        name = f"P{k + 1}"
        image = write_pyramid(out / "slides" / f"{name}.tif", SlideImage(specimen.anatomy, mpp), mpp)
        progress(f"{name}: wrote {image}")
        record = {"image": f"slides/{name}.tif", "patient": name, "mpp": mpp}
        labels = []
        for layout in layouts:
            label = f"units/{name}_{layout.name}.h5ad"
            _write(out / label, _measure(specimen, layout, name, mpp, image))
            progress(f"{name}: wrote {out / label}")
            labels.append(label)
        measured[split].append({**record, "label": labels})
        if truth == "all" or (truth == "test" and split == "test"):
            label = f"units/{name}_truth2.h5ad"
            _write(out / "truth" / label, _truth(specimen, name, mpp, truth_um))
            progress(f"{name}: wrote {out / 'truth' / label}")
            exact[split].append({**record, "image": f"../slides/{name}.tif", "label": [label]})
    if truth != "none":
        write_manifest(out / "truth", exact)
    write_manifest(out, measured)
    return out


def _is_phantom(manifest: dict[str, Any]) -> bool:
    """Whether a manifest is a phantom's, and not one that a user wrote."""
    slides = sorted(slide["image"] for split in ("training", "validation", "test") for slide in manifest[split])
    same = slides == sorted(f"slides/P{k + 1}.tif" for k in range(len(slides)))
    return same and manifest.keys() == {"split_by", "training", "validation", "test"}


def _on_tissue(specimen: Specimen, centers_um: np.ndarray) -> np.ndarray:
    return specimen.anatomy.margin_um(centers_um[:, 0], centers_um[:, 1]) >= 0


def _measure(specimen: Specimen, layout: Layout, name: str, mpp: float, image: Path) -> ad.AnnData:
    centers_um, place = layout.centers_um(specimen.size_um)
    in_tissue = _on_tissue(specimen, centers_um)
    if layout.kind == "bin":
        centers_um, place, in_tissue = centers_um[in_tissue], place[in_tissue], in_tissue[in_tissue]
    with tifffile.TiffFile(image) as tiff:
        hires = tiff.pages[-1].asarray()
        hires_scale = hires.shape[1] / tiff.pages[0].shape[1]
    return build_units(
        specimen.count(centers_um, layout),
        specimen.expression.names,
        [f"{layout.name}_{row:05d}_{col:05d}" for col, row in place],
        centers_um / mpp,
        shape=layout.shape,
        size_um=layout.size_um,
        mpp=mpp,
        section=name,
        in_tissue=in_tissue,
        array_xy=place,
        hires=hires,
        hires_scale=hires_scale,
    )


def _truth(specimen: Specimen, name: str, mpp: float, truth_um: float) -> ad.AnnData:
    centers_um, place = _TRUTH.centers_um(specimen.size_um)
    keep = np.all(np.abs(centers_um - specimen.size_um / 2) <= truth_um / 2, axis=1)
    centers_um, place = centers_um[keep], place[keep]
    keep = _on_tissue(specimen, centers_um)
    centers_um, place = centers_um[keep], place[keep]
    parts, order = [], []
    for index, rates in specimen.expected(centers_um, _TRUTH, as_measured=False):
        parts.append(sp.csr_matrix(rates.astype(np.float32)))
        order.append(index)
    if not parts:
        raise InputError(
            f"{name} has no tissue in the central {truth_um:g} µm; lower blank_fraction or raise truth_um."
        )
    # The units follow the chunks: reordering them is cheaper than reordering a matrix of this size.
    centers_um, place = centers_um[np.concatenate(order)], place[np.concatenate(order)]
    return build_units(
        sp.csr_matrix(sp.vstack(parts)),
        specimen.expression.names,
        [f"truth2_{row:05d}_{col:05d}" for col, row in place],
        centers_um / mpp,
        shape="square",
        size_um=_TRUTH.size_um,
        mpp=mpp,
        section=name,
        array_xy=place,
        kind="rate",
    )


def _write(path: Path, adata: ad.AnnData) -> None:
    with replacing(path) as temporary:
        adata.write_h5ad(temporary, compression="lzf")
