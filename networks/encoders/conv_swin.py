"""Swin stages over a pretrained convolutional stem."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import nn

from .efficientnet_lite import EfficientNetLiteEncoder
from .swin import SwinStages

__all__ = ["ConvSwinEncoder"]


class ConvSwinEncoder(nn.Module):
    """Convolutions for texture, attention for context: a hybrid in the form of CTransPath.

    CTransPath (Wang et al. 2022, https://doi.org/10.1016/j.media.2022.102559) puts a convolutional stem where Swin cuts
    patches. Here the stem is EfficientNet-lite0 with its ImageNet weights up to `stem_stride`, whose finer levels are
    given too, and the Swin stages start from scratch. Its own intensity scale is (x - 127) / 128.

    Args:
        stem_stride: where the stem ends and the first Swin stage begins: 4, 8 or 16.
        embed_dim: channels of the first Swin stage; they double with each.
        depths: blocks per Swin stage; odd ones have shifted windows.
        num_heads: attention heads per Swin stage.
        window_size: side of an attention window, in cells.
        drop_path_rate: stochastic depth of the last block; rises linearly from 0 at the first.
        pretrained: start the stem from ImageNet weights; else at random.
        finest_stride: levels of the stem below it are not given.

    Attributes:
        strides: pixels per cell of each level: the stem's below `stem_stride`, then the Swin stages'.
        channels: channels of each level.
        grid_px: inputs and tile origins that are multiples of it give the same values.

    Raises:
        MissingExtraError: if the packages of the extra `encoders` are missing.
        ValueError: if `stem_stride` is not one of the stem's, or the stages do not fit each other.
    """

    def __init__(
        self,
        stem_stride: int = 8,
        embed_dim: int = 96,
        depths: Sequence[int] = (2, 2),
        num_heads: Sequence[int] = (3, 6),
        window_size: int = 8,
        drop_path_rate: float = 0.1,
        pretrained: bool = True,
        finest_stride: int = 4,
    ) -> None:
        super().__init__()
        if stem_stride not in (4, 8, 16):
            raise ValueError(f"stem_stride={stem_stride}: the stem can end at 4, 8 or 16.")
        self.stem = EfficientNetLiteEncoder([s for s in (4, 8, 16) if finest_stride <= s <= stem_stride], pretrained)
        self.embed = nn.Conv2d(self.stem.channels[-1], embed_dim, 1)
        self.embed_norm = nn.LayerNorm(embed_dim)
        self.stages = SwinStages(embed_dim, depths, num_heads, window_size, stem_stride, drop_path_rate)
        self._finer = len(self.stem.strides) - 1
        self.strides = (*self.stem.strides[:-1], *self.stages.strides)
        self.channels = (*self.stem.channels[:-1], *self.stages.channels)
        self.grid_px = math.lcm(self.stem.grid_px, self.stages.grid_px)

    def forward(self, image: torch.Tensor) -> list[torch.Tensor]:
        """Features of each level, finest first.

        Args:
            image: (B, 3, H, W); H and W multiples of `grid_px`.

        Returns:
            One (B, channels[l], H / strides[l], W / strides[l]) per level.
        """
        *finer, x = self.stem(image)
        x = self.embed_norm(self.embed(x).permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
        return [*finer, *self.stages(x)]

    def input_margin_px(self, level: int, margin_px: int) -> int:
        """Input pixels read beyond a `grid_px`-aligned core by the cells of `level` up to `margin_px` beyond it."""
        if level >= self._finer:
            margin_px = self.stages.input_margin_px(level - self._finer, margin_px)
        return self.stem.input_margin_px(min(level, self._finer), margin_px)
