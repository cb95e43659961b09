"""Colours and stains as features: filters that need no training and no file of weights."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import nn
from torch.nn import functional as F

__all__ = ["ColourEncoder"]

# Optical density (R, G, B) of haematoxylin, eosin and DAB, here the residual (Ruifrok & Johnston, "Quantification of
# histochemical staining by color deconvolution", 2001).
_STAINS = torch.tensor([[0.65, 0.70, 0.29], [0.07, 0.99, 0.11], [0.27, 0.57, 0.78]])
#: Haematoxylin, eosin and darkness above which a pixel counts: soft shares, so that a mean over pixels tells of the
#: distribution what percentiles tell.
_THRESHOLDS = {"haematoxylin": (0.1, 0.25, 0.4, 0.6, 0.9), "eosin": (0.1, 0.25, 0.4, 0.6, 0.9)}
_DARKNESS = (0.1, 0.2, 0.35, 0.5, 0.65)
_SOFTNESS = 0.08


class ColourEncoder(nn.Module):
    """Means over a cell of what can be said of a pixel: colours, stains, their squares, shares above thresholds, edges.

    Nothing is learned. A mean over cells is a mean over pixels, so that a unit of any size has its own statistics.

    Args:
        strides: pixels per cell of each level, finest first, each a multiple of the one before.
        mean: what was subtracted from intensities of 0 to 255, for red, green and blue.
        std: what they were divided by then.

    Attributes:
        strides: pixels per cell of each level.
        channels: channels of each level.
        grid_px: the coarsest stride.

    Raises:
        ValueError: if a stride is no multiple of the one before.
    """

    mean: torch.Tensor
    std: torch.Tensor

    def __init__(
        self,
        strides: Sequence[int] = (4, 16, 32),
        mean: Sequence[float] = (0.0, 0.0, 0.0),
        std: Sequence[float] = (1.0, 1.0, 1.0),
    ) -> None:
        super().__init__()
        if not strides or any(b % a for a, b in pairwise(strides)):
            raise ValueError(f"strides={list(strides)}: each must be a multiple of the one before.")
        self.strides = tuple(strides)
        self.grid_px = self.strides[-1]
        self.channels = (16 + 10 + len(_DARKNESS),) * len(self.strides)
        stains = _STAINS / _STAINS.norm(dim=1, keepdim=True)
        self.register_buffer("mean", torch.tensor(mean).view(3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(std).view(3, 1, 1), persistent=False)
        # a fixed 1 x 1 convolution; a parameter, since a network is asked for its device
        self.unmix = nn.Parameter(torch.linalg.inv(stains).T[..., None, None].contiguous(), requires_grad=False)

    def input_margin_px(self, level: int, margin_px: int) -> int:
        """Whole cells, and the pixel beyond them that an edge is seen against."""
        stride = self.strides[level]
        return -(-margin_px // stride) * stride + 1

    def forward(self, image: torch.Tensor) -> list[torch.Tensor]:
        """(B, 3, H, W) -> list of (B, 31, H / s, W / s), finest first."""
        rgb = ((image * self.std + self.mean) / 255).clamp(1 / 256, 1)
        density = F.conv2d(-rgb.log(), self.unmix)
        high, low = rgb.amax(1, keepdim=True), rgb.amin(1, keepdim=True)
        bright = rgb.mean(1, keepdim=True)
        plain = torch.cat([rgb, density, (high - low) / high], dim=1)
        edges = torch.cat([_gradient(bright), _gradient(density[:, :1])], dim=1)
        shares = [_share(density[:, i : i + 1], at) for i, at in enumerate(_THRESHOLDS.values())]
        pixels = torch.cat([plain, plain.square(), edges, *shares, _share(1 - bright, _DARKNESS)], dim=1)
        levels, at = [], 1
        for stride in self.strides:
            pixels = F.avg_pool2d(pixels, stride // at)
            levels.append(pixels)
            at = stride
        return levels


def _share(value: torch.Tensor, thresholds: Sequence[float]) -> torch.Tensor:
    at = torch.tensor(thresholds, device=value.device, dtype=value.dtype).view(-1, 1, 1)
    return torch.sigmoid((value - at) / _SOFTNESS)


def _gradient(value: torch.Tensor) -> torch.Tensor:
    padded = F.pad(value, (1, 1, 1, 1), mode="replicate")
    across, down = padded[..., 1:-1, 2:] - padded[..., 1:-1, :-2], padded[..., 2:, 1:-1] - padded[..., :-2, 1:-1]
    return (across.square() + down.square() + 1e-12).sqrt() / 2
