"""The crop model: one crop per unit, as in ST-Net, with our encoder, heads, loss and sampling of units.

ST-Net (He et al. 2020, https://doi.org/10.1038/s41551-020-0578-x) fine-tunes a CNN pretrained on ImageNet on one crop
around each spot: the last features are averaged over the crop and a linear layer gives expression. Encoder, head, loss
and units are the dense model's. A budget counts the pixels that go through the encoder in training.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from monai.optimizers import WarmupCosineSchedule, generate_param_groups
from torch import nn

from bundle.data.crop_dataset import CropDataset
from bundle.data.units import unit_area_um2
from bundle.files.atomic import replacing
from networks import ExpressionLoss, ExpressionModel, UnitExpression
from networks.heads import build_head
from networks.tta import FLIPS_AND_TURNS, turn
from transforms import RandHEStain

__all__ = ["CropNet", "Picture", "crop_features", "train_crops"]

logger = logging.getLogger(__name__)

_EDGE_PX = 256  # white border of an image, at least half of the largest crop


class CropNet(ExpressionModel):
    """The coarsest features of an encoder averaged over a crop, and a head on them.

    Args:
        n_genes: genes of the panel.
        encoder: see `networks.encoders.Encoder`.
        crop_px: side of the crops.
        head: `linear` or `programs`.
        n_programs: of the head `programs`.
    """

    def __init__(
        self,
        n_genes: int,
        encoder: nn.Module,
        crop_px: int,
        head: Literal["linear", "programs"] = "linear",
        n_programs: int = 32,
    ) -> None:
        channels: Any = encoder.channels
        super().__init__(build_head(head, channels[-1], n_genes, n_programs))
        self.encoder = encoder
        self.stride = self.grid_px = int(crop_px)
        self.halo_px = 0

    def decode(self, image: torch.Tensor) -> torch.Tensor:
        """(B, 3, crop_px, crop_px) -> (B, C, 1, 1)."""
        return self.encoder(image)[-1].mean((2, 3), keepdim=True)


class Picture:
    """A whole slide at the working resolution, in memory.

    Args:
        slide: an open slide.
        mpp: micrometres per pixel.
    """

    def __init__(self, slide: Any, mpp: float) -> None:
        width, height = (int(np.ceil(side * slide.mpp / mpp)) for side in slide.level_dimensions[0])
        self.mpp = mpp
        self.pixels = np.pad(
            slide.read_region(0, 0, width, height, mpp), [(_EDGE_PX, _EDGE_PX)] * 2 + [(0, 0)], constant_values=255
        )

    def crops(self, centers_um: np.ndarray, side_px: int) -> torch.Tensor:
        """Crops about points (x, y), white beyond the slide, float32 (U, 3, side_px, side_px) in 0..255."""
        corner = np.rint(centers_um / self.mpp - side_px / 2).astype(int) + _EDGE_PX
        crops = [self.pixels[y : y + side_px, x : x + side_px] for x, y in corner]
        return torch.from_numpy(np.stack(crops)).permute(0, 3, 1, 2).float()


def train_crops(
    net: CropNet,
    dataset: CropDataset,
    pictures: Sequence[Picture],
    loss: ExpressionLoss,
    normalise: Any,
    *,
    steps: int,
    batch_units: int = 32,
    learning_rate: float = 5e-4,
    encoder_learning_rate: float = 1e-4,
    seed: int = 0,
    checkpoint: Path | None = None,
) -> CropNet:
    """Fine-tune on the units that the dense model sees: each step takes two regions of `dataset`, of different slides.

    What a step draws follows from the seed and its number, so a training that was stopped continues unchanged.

    Args:
        net: with its head initialised, on its device.
        dataset: of the dense model, with a transform that changes nothing.
        pictures: of the data set's slides, in its order.
        loss: of the dense model.
        normalise: from a crop, float32 (3, H, W) in 0..255, to the network's input.
        steps: of the optimiser.
        batch_units: crops a step, half of them of one unit size in each region.
        learning_rate: after the warm-up, before the cosine.
        encoder_learning_rate: likewise, of the pretrained encoder.
        seed: of all draws besides the data set's own.
        checkpoint: file to continue from, written every 20 steps.
    """
    groups = generate_param_groups(
        net, [lambda named: named[0].startswith("encoder.")], ["filter"], [encoder_learning_rate]
    )
    optimizer = torch.optim.AdamW(groups, lr=learning_rate, weight_decay=1e-4)
    schedule = WarmupCosineSchedule(optimizer, warmup_steps=max(steps // 10, 1), t_total=steps, warmup_multiplier=0.1)
    stain, done = RandHEStain(prob=0.9), 0
    device = next(net.parameters()).device
    parts_of_run: dict[str, Any] = {"net": net, "optimizer": optimizer, "schedule": schedule}
    if checkpoint is not None and checkpoint.is_file():
        state = torch.load(checkpoint, weights_only=True, map_location=device)
        done = state.pop("done")
        for name, part in parts_of_run.items():
            part.load_state_dict(state[name])
    net.train()
    for step in range(done, steps):
        rng = np.random.default_rng([seed, step])
        stain.set_random_state(int(rng.integers(2**31)))
        torch.manual_seed(int(rng.integers(2**31)))
        parts = []
        for item in (2 * step, 2 * step + 1):
            dataset.set_epoch(item // len(dataset))
            parts.append(_units(dataset[item % len(dataset)], pictures, net.stride, batch_units // 2, rng))
        batch = {key: torch.cat([part[key] for part in parts]) for key in parts[0]}
        crops = [
            turn(torch.as_tensor(stain(crop)), int(rng.integers(len(FLIPS_AND_TURNS)))) for crop in batch.pop("crops")
        ]
        image = torch.stack([torch.as_tensor(normalise(crop)).as_subclass(torch.Tensor) for crop in crops])
        pooled = net.features(image.to(device))[..., 0, 0]
        moved = {key: value.to(device) for key, value in batch.items()}
        value = loss(UnitExpression(net.project(pooled), net.rate(pooled)), moved)
        optimizer.zero_grad()
        value.backward()
        optimizer.step()
        schedule.step()
        if (step + 1) % 20 == 0 or step + 1 == steps:
            logger.info("crop model, step %d of %d: loss %.4f", step + 1, steps, value.item())
            if checkpoint is not None:
                states = {name: part.state_dict() for name, part in parts_of_run.items()}
                with replacing(checkpoint) as temporary:
                    torch.save({**states, "done": step + 1}, temporary)
    return net.eval()


def _units(
    sample: dict[str, Any], pictures: Sequence[Picture], side_px: int, n: int, rng: np.random.Generator
) -> dict[str, torch.Tensor]:
    """At most `n` units of one size of a region, with their crops."""
    layers = sample["label"]
    sizes = [len(layer["centers_um"]) for layer in layers]
    number = int(rng.choice(np.flatnonzero(sizes)))
    layer, first = layers[number], sum(sizes[:number])
    index = np.sort(rng.permutation(sizes[number])[:n])
    slide = int(sample["slide_index"])
    return {
        "crops": pictures[slide].crops(layer["centers_um"][index], side_px),
        **{key: sample[key][first + index] for key in ("target", "total", "size_factor", "normalised")},
        "area_um2": torch.full((len(index),), unit_area_um2(layer["shape"], layer["size_um"])),
        "unit_layer": torch.full((len(index),), number),
        "unit_group": torch.full((len(index),), slide * len(layers) + number),
    }


@torch.no_grad()
def crop_features(
    net: CropNet, picture: Picture, centers_um: np.ndarray, normalise: Any, batch_units: int = 64
) -> torch.Tensor:
    """Features of the crops about points (x, y), (U, channels), on the network's device."""
    device, found = next(net.parameters()).device, []
    for start in range(0, len(centers_um), batch_units):
        crops = picture.crops(centers_um[start : start + batch_units], net.stride)
        image = torch.stack([torch.as_tensor(normalise(crop)).as_subclass(torch.Tensor) for crop in crops])
        found.append(net.features(image.to(device))[..., 0, 0])
    return torch.cat(found)
