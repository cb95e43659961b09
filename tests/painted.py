"""Slides whose colour is their expression, and a network that only reads colours.

Red is the density of the gene RED, green that of GREEN, and blue that of all genes together. A network that answers by
the mean colour of a unit is then right at every unit size, so whatever mixes up pixels, masks, units, genes, counts or
slides shows as an error. Colours are a smooth random field: neighbours differ, and half a pixel's shift is seen.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import scipy.sparse as sp
import torch
from scipy import ndimage
from torch import nn
from torch.nn import functional as F

from bundle.data.build_units import build_units
from bundle.data.manifest import write_manifest
from bundle.writers.tiff_pyramid import write_pyramid
from networks import ExpressionModel, Head

#: As they stand in the files: the two that are painted lie apart, and the others share what is left of all counts.
GENES = [*(f"OTHER{i:02d}" for i in range(10)), "GREEN", *(f"OTHER{i:02d}" for i in range(10, 30)), "RED"]
#: As the panel orders them, by their means.
PANEL = ["RED", "GREEN"]
#: All counts of a unit per level of blue, and those of the gene per level of red or green.
COUNTS_PER_LEVEL = 20
TOTAL_PER_BLUE = 4 * COUNTS_PER_LEVEL
SPOT_UM, PITCH_UM, BIN_UM = 55.0, 60.0, 16.0
EDGE_UM = 10.0  # a cell of the map there shows glass too
_SMOOTH_UM = 22.0  # how far colours reach


class ColourHead(Head):
    """Mean colour (..., 3) to rates, in an arbitrary unit of area."""

    channels = 3

    def __init__(self, genes: Sequence[str]) -> None:
        super().__init__()
        self.n_genes = len(genes)
        self.columns = [{"RED": 0, "GREEN": 1}[gene] for gene in genes]

    def activate(self, features: torch.Tensor) -> torch.Tensor:
        return features

    def rate(self, pooled: torch.Tensor) -> torch.Tensor:
        weight, bias = self.affine()
        return pooled @ weight.to(pooled).T + bias.to(pooled)

    def affine(self) -> tuple[torch.Tensor, torch.Tensor]:
        own = torch.eye(3)[self.columns]
        rest = 4 * torch.eye(3)[2] - own.sum(0)
        return torch.cat([own, rest[None]]), torch.zeros(self.n_genes + 1)

    def project(self, pooled: torch.Tensor) -> torch.Tensor:
        rate = self.rate(pooled)
        return torch.log1p(1e4 * rate[..., :-1] / rate.sum(-1, keepdim=True))

    def initialize(self, **_: Any) -> None:
        """There is nothing to start."""


class ColourNetwork(ExpressionModel):
    """Its map is the mean colour of `stride` x `stride` pixels, 0..255.

    Args:
        genes: the panel's, in its order.
        mean: subtracted from pixels before.
        std: divided by.
        stride: pixels of a cell.
    """

    mean: torch.Tensor
    std: torch.Tensor

    def __init__(self, genes: Sequence[str], mean: Sequence[float], std: Sequence[float], stride: int = 4) -> None:
        super().__init__(ColourHead(genes))
        self.stride, self.grid_px, self.halo_px = stride, 2 * stride, 0
        self.register_buffer("mean", torch.tensor(mean).view(3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(std).view(3, 1, 1), persistent=False)
        self.nothing = nn.Parameter(torch.zeros(1))  # an optimizer needs something to train

    def decode(self, image: torch.Tensor) -> torch.Tensor:
        return F.avg_pool2d(image * self.std + self.mean, self.stride) + 0 * self.nothing


@dataclass(frozen=True)
class Painted:
    """A painted slide: its pixels, uint8 (H, W, 3), and their size."""

    pixels: np.ndarray
    mpp: float

    @classmethod
    def draw(cls, seed: int, size_um: tuple[float, float], mpp: float) -> Painted:
        """Draw a slide of (width, height)."""
        rng = np.random.default_rng(seed)
        width, height = (round(side / mpp) for side in size_um)
        noise = ndimage.gaussian_filter(rng.normal(size=(height, width, 3)), (_SMOOTH_UM / mpp, _SMOOTH_UM / mpp, 0))
        field = np.clip(noise / noise.std((0, 1)), -2.3, 2.3)
        # Blue stays the brightest: no place is grey, so all of it is tissue.
        colours = np.array([115.0, 105.0, 200.0]) + field * (22, 22, 8)
        return cls(np.rint(colours).astype(np.uint8), mpp)

    def colours(self, centers_px: np.ndarray, shape: str, size_um: float) -> np.ndarray:
        """Mean colour of units by counting pixels one unit at a time, (U, 3); NaN where a unit leaves the slide."""
        found = np.full((len(centers_px), 3), np.nan)
        half = size_um / self.mpp / 2
        height, width = self.pixels.shape[:2]
        for number, (x, y) in enumerate(centers_px):
            low_x, low_y = int(np.floor(x - half)), int(np.floor(y - half))
            high_x, high_y = int(np.ceil(x + half)), int(np.ceil(y + half))
            if low_x < 0 or low_y < 0 or high_x > width or high_y > height:
                continue
            at_x, at_y = np.arange(low_x, high_x) + 0.5 - x, np.arange(low_y, high_y) + 0.5 - y
            if shape == "circle":
                inside = at_x**2 + at_y[:, None] ** 2 < half**2
            else:
                inside = (np.abs(at_x) <= half) & (np.abs(at_y[:, None]) <= half)
            found[number] = self.pixels[low_y:high_y, low_x:high_x][inside].mean(0)
        return found


def counts_of(colours: np.ndarray) -> sp.csr_matrix:
    """Counts of all `GENES` in units of these mean colours."""
    red, green, total = np.rint(colours * (COUNTS_PER_LEVEL, COUNTS_PER_LEVEL, TOTAL_PER_BLUE)).astype(int).T
    others = np.flatnonzero([gene.startswith("OTHER") for gene in GENES])
    counts = np.zeros((len(colours), len(GENES)), int)
    counts[:, GENES.index("RED")], counts[:, GENES.index("GREEN")] = red, green
    share, left = np.divmod(total - red - green, len(others))
    counts[:, others] = share[:, None] + (np.arange(len(others)) < left[:, None])
    return sp.csr_matrix(counts)


def y_of(colours: np.ndarray) -> np.ndarray:
    """log1p CP10k of `PANEL` in units of these mean colours, (..., 2)."""
    return np.log1p(1e4 * colours[..., :2] / (4 * colours[..., 2:]))


def colours_of(y: np.ndarray, total: np.ndarray) -> np.ndarray:
    """The mean colours that targets and totals tell of, (U, 3)."""
    own = np.expm1(y.astype(float)) / 1e4 * total[:, None] / COUNTS_PER_LEVEL
    return np.column_stack([own, total / TOTAL_PER_BLUE])


def write_units(path: Path, slide: Painted, name: str, shape: str, size_um: float, pitch_um: float, seed: int) -> None:
    """Write a lattice of units in a random order, some of them off tissue or too empty, with counts that are wrong."""
    rng = np.random.default_rng([seed, round(size_um)])
    height, width = np.array(slide.pixels.shape[:2]) * slide.mpp
    first, last = (pitch_um / 2 + EDGE_UM + corner for corner in (1.7, 0))
    x, y = np.meshgrid(*(np.arange(first, side - last, pitch_um) for side in (width, height)))
    centers_px = rng.permutation(np.column_stack([x.ravel(), y.ravel()])) / slide.mpp
    colours = slide.colours(centers_px, shape, size_um)
    wrong = rng.permutation(len(colours))[: len(colours) // 10]
    in_tissue = np.ones(len(colours), bool)
    in_tissue[wrong[1::2]] = False
    counts = counts_of(colours).tolil()
    counts[wrong] = counts_of(colours[np.roll(wrong, 1)])[:, ::-1]
    if size_um >= SPOT_UM:  # smaller ones are not left out for being empty
        counts[wrong[::2]] = (counts[wrong[::2]].toarray() // 200).astype(int)
    else:
        in_tissue[wrong] = False
    # The spots' names say nothing of their order or place.
    names = [f"{name}-{number:05d}" for number in rng.permutation(len(colours))]
    adata = build_units(
        counts.tocsr(),
        GENES,
        names,
        centers_px,
        shape=shape,  # type: ignore[arg-type]
        size_um=size_um,
        mpp=slide.mpp,
        section=name,
        in_tissue=in_tissue,
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    adata.write_h5ad(path)


def make_painted(root: Path) -> dict[str, Painted]:
    """Write a painted data set: two slides to train on, one to validate, one to test; none is square, or like another.

    Returns:
        The slides by their names.
    """
    drawn = {
        "T1": Painted.draw(1, (1010, 830), 0.8),
        "T2": Painted.draw(2, (850, 940), 0.7),
        "V": Painted.draw(3, (700, 620), 1.0),
        "W": Painted.draw(4, (900, 700), 0.75),
    }
    splits = {"T1": "training", "T2": "training", "V": "validation", "W": "test"}
    manifest: dict[str, Any] = {"split_by": "patient", "training": [], "validation": [], "test": []}
    for seed, (name, slide) in enumerate(drawn.items()):
        (root / "slides").mkdir(parents=True, exist_ok=True)
        write_pyramid(root / "slides" / f"{name}.tif", slide.pixels, slide.mpp, compression="lzw")
        labels = []
        for kind, shape, size_um, pitch_um in (
            ("spots", "circle", SPOT_UM, PITCH_UM),
            ("bins", "square", BIN_UM, BIN_UM),
        ):
            labels.append(f"{kind}/{name}.h5ad")
            write_units(root / labels[-1], slide, name, shape, size_um, pitch_um, seed)
        record = {"image": f"slides/{name}.tif", "label": labels, "patient": f"patient of {name}", "mpp": slide.mpp}
        manifest[splits[name]].append(record)
    write_manifest(root, manifest)
    return drawn


#: Neither is what a configuration has by itself, so that what a run forgets of its training shows.
MPP, INTENSITY = 1.6, {"mean": [120.0, 110.0, 190.0], "std": [40.0, 45.0, 30.0]}
#: Settings under which `ColourNetwork` is "trained".
SETTINGS: dict[str, Any] = {
    "network_def": {
        "_target_": "tests.painted.ColourNetwork",
        "genes": PANEL,
        **INTENSITY,
        "stride": 4,
    },
    "intensity": INTENSITY,
    "mpp": MPP,
    "head": "programs",
    "n_programs": 2,
    "panel#n_mean": 2,
    "panel#n_hvg": 2,
    "crops_per_slide": 1,
    "max_epochs": 1,
    "unit_sizes_um": [SPOT_UM, BIN_UM],
}
