"""The methods that `benchmarks.scales` compares: how each predicts the same units of a test slide.

A method gives a `bundle.metrics` prediction: expression of any groups of those units.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import scipy.sparse as sp
import torch
from monai.bundle import ConfigParser
from scipy.interpolate import LinearNDInterpolator, NearestNDInterpolator, RegularGridInterpolator

from bundle import config, workflows
from bundle.data.crop_dataset import CropDataset
from bundle.data.fit_panel import fit_panel
from bundle.data.manifest import read_split
from bundle.data.normalisation import LARGE_UNIT_UM, TARGET_SUM, bounded, passes_quality_control
from bundle.data.panel import GenePanel
from bundle.data.slide_dataset import SlideDataset
from bundle.data.units import Units
from bundle.metrics import grouped
from bundle.metrics.score import Prediction
from bundle.training.head_start import start_head
from networks import EfficientNetLiteEncoder, ExpressionLoss
from transforms import SlideReader

from .stnet import CropNet, Picture, crop_features, train_crops
from .store import digest

__all__ = [
    "Recipe",
    "configurations",
    "has_ridge",
    "predict_crop",
    "predict_interpolated",
    "predict_pixnet",
    "test_units",
    "train_crop",
    "train_pixnet",
]

_GRID_UM = 16.0  # pitch of the crop model's predictions, between which finer units are interpolated


@dataclass(frozen=True)
class Recipe:
    """Settings that both models share.

    Attributes:
        mpp: working resolution.
        crop_px: side of the dense model's crops.
        unit_crop_px: side of the crop model's crops.
        steps: of the optimiser; both read as many pixels in each.
        crops_per_slide: of the dense model in one epoch.
        max_units: of one size in a dense crop.
        n_programs: of the heads.
        seed: of everything.
    """

    mpp: float
    crop_px: int
    unit_crop_px: int
    steps: int
    crops_per_slide: int
    max_units: int = 64
    n_programs: int = 32
    seed: int = 0

    @property
    def batch_units(self) -> int:
        """Crops of the crop model that hold as many pixels as a dense batch of two."""
        return 2 * self.crop_px**2 // self.unit_crop_px**2

    def as_stnet(self) -> Recipe:
        """The crop model with ST-Net's crops, 224 px of 1 µm: as many pixels in training, in steps of 32 crops."""
        crop_px = 4 * 224
        steps = max(round(self.steps * self.crop_px**2 / crop_px**2), 1)
        return replace(self, mpp=1.0, crop_px=crop_px, unit_crop_px=224, steps=steps)

    def settings(self, slides: int, sizes_um: Sequence[float]) -> dict[str, Any]:
        """Keys of `train.json`."""
        epochs = max(round(self.steps / (slides * self.crops_per_slide / 2)), 1)
        return {
            "mpp": self.mpp,
            "crop_px": self.crop_px,
            "crops_per_slide": self.crops_per_slide,
            "max_units": self.max_units,
            "n_programs": self.n_programs,
            "max_epochs": epochs,
            "val_interval": epochs + 1,  # nothing is chosen on the way
            "seed": self.seed,
            "unit_sizes_um": list(sizes_um),
            # a map fine enough for the smallest units
            "network_def#encoder#strides": [4, 8, 16, 32],
            "network_def#decoder_channels": [64, 96, 128, 192],
        }


def _config_files(sizes_um: Sequence[float]) -> list[Path]:
    """The recipe's files; units below 55 µm need the head that learns counts."""
    names = ["efficientnet_lite.json", *([] if has_ridge(sizes_um) else ["programs.json"])]
    return [config.bundle_root() / "configs" / name for name in names]


def configurations(sizes_um: Sequence[float]) -> str:
    """A digest of the merged configuration that both models train with."""
    return digest(_training_config(sizes_um).get())


def _reader() -> Any:  # the packages do not share a type
    return SlideReader()


def train_pixnet(data: Path, run: Path, recipe: Recipe, sizes_um: Sequence[float]) -> None:
    """Train the dense model, or continue a training that was stopped."""
    settings = recipe.settings(len(read_split(data, "training")), sizes_um)
    workflows.train(data, run, _config_files(sizes_um), settings)


def _evaluation(data: Path, run: Path) -> Any:
    """The evaluation's parser, its network with the weights."""
    root = config.bundle_root()
    parser = ConfigParser(json.loads((root / "configs" / "evaluate.json").read_text()))
    own = {"bundle_root": str(root), "dataset_dir": str(data), "output_dir": str(run)}
    for key, value in {**json.loads((run / "configs" / "model.json").read_text()), **own}.items():
        parser[key] = value
    network = parser.get_parsed_content("network").eval()
    device = parser.get_parsed_content("device")
    network.load_state_dict(torch.load(run / "models" / "model.pt", weights_only=True, map_location=device))
    return parser


def test_units(data: Path, panel: GenePanel, size_um: float) -> dict[str, Any]:
    """The test slide with its units of one size, as evaluation has it."""
    return SlideDataset(read_split(data, "test"), _reader(), panel, size_um)[0]


def predict_pixnet(data: Path, run: Path, slide: Mapping[str, Any], ridge: bool = True) -> Prediction:
    """The dense model's prediction of the units of a slide; without the `ridge` branch that of its head alone."""
    parser = _evaluation(data, run)
    network, inferer = parser.get_parsed_content("network"), parser.get_parsed_content("inferer")
    with torch.inference_mode():
        pooled = inferer(slide, network)
    return grouped(pooled if ridge else pooled[:, : network.head.channels], network.project, network.rate)


def has_ridge(sizes_um: Sequence[float]) -> bool:
    """Whether the dense model has a ridge branch: it has one if all units are large enough."""
    return min(sizes_um) >= LARGE_UNIT_UM


def _training_config(sizes_um: Sequence[float]) -> ConfigParser:
    """`train.json` with the overrides of both models."""
    parser = ConfigParser(json.loads((config.bundle_root() / "configs" / "train.json").read_text()))
    for file in _config_files(sizes_um):
        for key, value in json.loads(file.read_text()).items():
            parser[key] = value
    return parser


def train_crop(data: Path, run: Path, recipe: Recipe, sizes_um: Sequence[float]) -> tuple[CropNet, GenePanel]:
    """Train the crop model as the dense one: encoder, head, loss, panel, units, augmentation, steps, pixels."""
    base = _training_config(sizes_um)
    programs = base["head"] == "programs"
    records, reader = read_split(data, "training"), _reader()
    panel = fit_panel(records, unit_sizes_um=list(sizes_um))
    dataset = CropDataset(
        records,
        panel,
        reader,
        lambda sample: sample,
        recipe.mpp,
        recipe.crop_px,
        recipe.crops_per_slide,
        unit_sizes_um=list(sizes_um),
        seed=recipe.seed,
        max_units=recipe.max_units,
        rates=programs,
    )
    pictures = [Picture(reader.open(r["image"], r.get("mpp")), recipe.mpp) for r in records]
    torch.manual_seed(recipe.seed)
    net = CropNet(len(panel), EfficientNetLiteEncoder([32]), recipe.unit_crop_px, base["head"], recipe.n_programs)
    start_head(net, panel, recipe.n_programs if programs else None)
    net.to(base.get_parsed_content("device"))
    weights = {key: base["loss"][key] for key in ("mse_weight", "pearson_weight", "poisson_weight", "min_units")}
    train_crops(
        net,
        dataset,
        pictures,
        ExpressionLoss(std=panel.std, **weights),
        base.get_parsed_content("validate#preprocessing"),
        steps=recipe.steps,
        batch_units=recipe.batch_units,
        learning_rate=base["learning_rate"],
        encoder_learning_rate=base["encoder_learning_rate"],
        seed=recipe.seed,
        checkpoint=run / "crop.pt",
    )
    return net, panel


def predict_crop(net: CropNet, recipe: Recipe, slide: Mapping[str, Any], trained_um: float) -> Prediction:
    """The crop model's prediction: one crop about a group's centre up to the trained size, above it the group's mean.

    Units of up to 16 µm are interpolated between crops 16 µm apart. These differ little, since a crop is more than ten
    times as wide.
    """
    normalise = _training_config([trained_um]).get_parsed_content("validate#preprocessing")
    picture = Picture(_reader().open(slide["image"], slide.get("mpp")), recipe.mpp)
    units: Units = slide["units"]
    centers_um = units.centers_px * slide["mpp"]

    def at(points: np.ndarray) -> torch.Tensor:
        return crop_features(net, picture, points, normalise)

    if units.size_um > _GRID_UM:
        own = at(centers_um)
        return grouped(own, net.project, net.rate)
    low = np.floor(centers_um.min(0) / _GRID_UM).astype(int)
    high = np.ceil(centers_um.max(0) / _GRID_UM).astype(int)
    axes = [np.arange(a, b + 1) * _GRID_UM for a, b in zip(low, high, strict=True)]
    grid = np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1)
    found = at(grid.reshape(-1, 2))
    values = found.cpu().numpy().reshape(*grid.shape[:2], -1)
    between = RegularGridInterpolator(axes, values)
    dense = torch.from_numpy(between(centers_um).astype(np.float32))
    as_groups = grouped(dense, net.project, net.rate)

    @torch.no_grad()
    def predict(groups: sp.csr_matrix) -> tuple[np.ndarray, np.ndarray | None]:
        size = np.asarray(groups.sum(1)).ravel()
        if math.sqrt(float(np.median(size))) * units.size_um > 1.05 * trained_um:
            return as_groups(groups)
        middle = (groups @ centers_um) / size[:, None]
        pooled = torch.from_numpy(between(np.clip(middle, centers_um.min(0), centers_um.max(0))).astype(np.float32))
        pooled = pooled.to(found)
        y, rate = bounded(net.project(pooled).cpu().numpy()), net.rate(pooled)
        return y, None if rate is None else rate.cpu().numpy() * size[:, None]

    return predict


def predict_interpolated(
    measured: Units, genes: Sequence[str], slide: Mapping[str, Any], how: str, min_total: float, leave_one_out: bool
) -> Prediction:
    """Interpolation, without any image: counts per µm² of the slide's own measured units at the places of others.

    Args:
        measured: units of the same slide.
        genes: of the panel.
        slide: with the `units` to predict.
        how: `nearest`, or `linear` (nearest beyond the hull of the measured centres).
        min_total: as in scoring.
        leave_one_out: the units to predict are the measured ones: interpolate each from the others.
    """
    known = measured.take(passes_quality_control(measured, min_total, training=False))
    at_um, to_um = known.centers_px * slide["mpp"], slide["units"].centers_px * slide["mpp"]
    counts = known.counts_of(genes)
    rate = np.column_stack([counts, np.maximum(known.total - counts.sum(1), 0)]) / known.area_um2
    rate = rate.astype(np.float32)
    carry = _nearest if how == "nearest" else _linear
    if leave_one_out:
        others = [np.arange(len(at_um)) != i for i in range(len(at_um))]
        found = np.concatenate([carry(at_um[o], rate[o], to_um[i : i + 1]) for i, o in enumerate(others)])
    else:
        found = carry(at_um, rate, to_um)

    def predict(groups: sp.csr_matrix) -> tuple[np.ndarray, np.ndarray | None]:
        summed = groups @ found
        total = np.maximum(summed.sum(1, keepdims=True), 1e-12)
        return np.log1p(TARGET_SUM * summed[:, :-1] / total), summed

    return predict


def _nearest(at: np.ndarray, values: np.ndarray, to: np.ndarray) -> np.ndarray:
    return np.asarray(NearestNDInterpolator(at, values)(to), dtype=np.float32)


def _linear(at: np.ndarray, values: np.ndarray, to: np.ndarray) -> np.ndarray:
    found = np.asarray(LinearNDInterpolator(at, values)(to), dtype=np.float32)
    beyond = ~np.isfinite(found).all(1)
    found[beyond] = _nearest(at, values, to[beyond])
    return found
