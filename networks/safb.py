"""Separable attention fusion block: PixNet's skip connection."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional as F

from .banded import fuse_in_bands, pays

__all__ = ["SAFB"]


class SAFB(nn.Module):
    """Fuse a skip F with the upsampled path U (overview figure of PixNet, https://arxiv.org/abs/2503.01347).

    ::

        S = depthwise 3x3(F)
        E = BatchNorm(SiLU(LayerNorm(1x1(SiLU(S))) + S))
        Q, K, V = 1x1([E, U])
        D = softmax(Q * K) * V + U

    Products are element-wise, so the cost is linear in the number of map pixels. The paper does not say over which axis
    the softmax runs. Over channels, a map pixel's result does not depend on how the slide is tiled.

    Args:
        skip_channels: channels of F.
        channels: channels of U and of the result.
    """

    def __init__(self, skip_channels: int, channels: int) -> None:
        super().__init__()
        self.depthwise = nn.Conv2d(skip_channels, skip_channels, 3, padding=1, groups=skip_channels)
        self.pointwise = nn.Conv2d(skip_channels, skip_channels, 1)
        self.layer_norm = nn.LayerNorm(skip_channels)
        self.batch_norm = nn.BatchNorm2d(skip_channels)
        self.qkv = nn.Conv2d(skip_channels + channels, 3 * channels, 1)

    def forward(self, skip: torch.Tensor, up: torch.Tensor) -> torch.Tensor:
        """(B, skip_channels, h, w) and (B, channels, h, w) -> (B, channels, h, w).

        At inference on a CPU the result is written over `up`, which saves a tenth of a tile's memory.
        """
        if pays(self, skip):
            return fuse_in_bands(self.depthwise, self._fuse, skip, up)
        return self._fuse(self.depthwise(skip), up)

    def _fuse(self, separable: torch.Tensor, up: torch.Tensor) -> torch.Tensor:
        """All that follows the depthwise convolution, which is pointwise."""
        mixed = self.pointwise(F.silu(separable))
        mixed = self.layer_norm(mixed.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
        enhanced = self.batch_norm(F.silu(mixed + separable))
        query, key, value = self.qkv(torch.cat([enhanced, up], dim=1)).chunk(3, dim=1)
        return torch.softmax(query * key, dim=1) * value + up
