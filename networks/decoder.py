"""U-Net decoder that fuses an encoder's features with SAFB or with plain convolutions."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import Literal

import torch
from torch import nn

from .safb import SAFB

__all__ = ["Decoder"]


class Decoder(nn.Module):
    """A U-Net decoder: from the coarsest features to the finest, with a fusion at each skip.

    The last upsampling is conv, bilinear, conv. Those before it are conv, ReLU, depth-to-space, conv, ReLU.

    Args:
        encoder_channels: channels of the encoder's features, finest first.
        strides: image pixels per map pixel of each level; each divides the next.
        channels: the decoder's channels at the same levels.
        fusion: `safb` (see `SAFB`), or `conv`: 3x3 convolution of both paths, BatchNorm, ReLU, as in a plain U-Net.

    Attributes:
        margins_px: for each level, how far beyond a core the decoder reads its features, in image pixels.

    Raises:
        ValueError: if the three lists differ in length, a stride does not divide the next, or the fusion is unknown.
    """

    def __init__(
        self,
        encoder_channels: Sequence[int],
        strides: Sequence[int],
        channels: Sequence[int],
        fusion: Literal["safb", "conv"] = "safb",
    ) -> None:
        super().__init__()
        if fusion not in ("safb", "conv"):
            raise ValueError(f"There is no fusion called {fusion!r}: choose 'safb' or 'conv'.")
        if not len(encoder_channels) == len(strides) == len(channels):
            raise ValueError(
                f"The encoder gives {len(strides)} levels and decoder_channels names {len(channels)}: "
                "name one width per level, finest first."
            )
        if any(coarse % fine for fine, coarse in itertools.pairwise(strides)):
            raise ValueError(f"Each of the encoder's strides must divide the next; they are {tuple(strides)}.")
        factors = [coarse // fine for fine, coarse in itertools.pairwise(strides)]
        self.bottleneck = nn.Conv2d(encoder_channels[-1], channels[-1], 1)
        self.ups = nn.ModuleList(
            (_depth_to_space_up if level else _bilinear_up)(channels[level + 1], channels[level], factor)
            for level, factor in enumerate(factors)
        )
        fuse = SAFB if fusion == "safb" else _ConvFusion
        self.fusions = nn.ModuleList(fuse(encoder_channels[level], channels[level]) for level in range(len(factors)))
        self.margins_px = _margins_px(strides, reads_up=fusion == "conv")

    def forward(self, features: Sequence[torch.Tensor]) -> torch.Tensor:
        """List of (B, C_l, H / s_l, W / s_l), finest first -> (B, channels[0], H / s_0, W / s_0)."""
        x = self.bottleneck(features[-1])
        for level in reversed(range(len(self.ups))):
            x = self.fusions[level](features[level], self.ups[level](x))
        return x


class _ConvFusion(nn.Module):
    """3x3 convolution of [skip, up], BatchNorm, ReLU."""

    def __init__(self, skip_channels: int, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(skip_channels + channels, channels, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(channels)

    def forward(self, skip: torch.Tensor, up: torch.Tensor) -> torch.Tensor:
        return torch.relu(self.norm(self.conv(torch.cat([skip, up], dim=1))))


def _depth_to_space_up(in_channels: int, out_channels: int, factor: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(in_channels, out_channels * factor**2, 3, padding=1),
        nn.ReLU(),
        nn.PixelShuffle(factor),
        nn.Conv2d(out_channels, out_channels, 3, padding=1),
        nn.ReLU(),
    )


def _bilinear_up(in_channels: int, out_channels: int, factor: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(in_channels, out_channels, 3, padding=1),
        nn.Upsample(scale_factor=factor, mode="bilinear", align_corners=False),
        nn.Conv2d(out_channels, out_channels, 3, padding=1),
    )


def _margins_px(strides: Sequence[int], reads_up: bool) -> list[int]:
    """How far beyond a core the decoder reads each level's features, in image pixels, found from the output down.

    Args:
        strides: image pixels per map pixel of the levels, finest first.
        reads_up: whether the fusion reads neighbours in the upsampled path too, and not in the skip alone.
    """
    margins_px, need_px = [], 0
    for level, (fine, coarse) in enumerate(itertools.pairwise(strides)):
        margins_px.append(need_px + fine)  # the fusion's 3x3
        need_px += 2 * fine if reads_up else fine  # ... and the conv after upsampling
        if level == 0:
            need_px += (coarse - fine) // 2  # bilinear reads the coarse pixel whose centre lies beyond
        need_px = math.ceil(need_px / coarse) * coarse + coarse  # whole coarse pixels, and the conv before upsampling
    return [*margins_px, need_px]
