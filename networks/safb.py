"""Separable attention fusion block: PixNet's skip connection."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional as F

from .pieces import conv_rows, is_whole, pieces

__all__ = ["SAFB"]


class SAFB(nn.Module):
    """Fuse a skip F with the upsampled path U (overview figure of PixNet, https://arxiv.org/abs/2503.01347).

    ::

        S = depthwise 3x3(F)
        E = BatchNorm(SiLU(LayerNorm(1x1(SiLU(S))) + S))
        Q, K, V = 1x1([E, U])
        D = softmax(Q * K) * V + U

    Products are element-wise, so the cost is linear in the number of cells. The paper leaves the axis of the softmax
    open; over channels, a cell's result does not depend on how the slide is tiled.

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

    def forward(self, skip: torch.Tensor, up: torch.Tensor, out: torch.Tensor | None = None) -> torch.Tensor:
        """(B, skip_channels, h, w) and (B, channels, h, w) -> (B, channels, h, w).

        Where the map is computed in pieces the result is written to `out`, which may be `up`; by default it is new.
        """
        if is_whole(self, skip):
            return self._fuse(self.depthwise(skip), up)
        height, out = skip.shape[2], torch.empty_like(up) if out is None else out
        for rows in pieces(height, skip.shape[3]):
            band = skip[:, :, max(rows.start - 1, 0) : rows.stop + 1]  # what the convolution reads
            separable = conv_rows(self.depthwise, band, rows.start == 0, rows.stop == height)
            out[:, :, rows] = self._fuse(separable, up[:, :, rows])
        return out

    def _fuse(self, separable: torch.Tensor, up: torch.Tensor) -> torch.Tensor:
        """What is done cell by cell."""
        mixed = self.pointwise(F.silu(separable))
        mixed = self.layer_norm(mixed.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
        enhanced = self.batch_norm(F.silu(mixed + separable))
        query, key, value = self.qkv(torch.cat([enhanced, up], dim=1)).chunk(3, dim=1)
        return torch.softmax(query * key, dim=1) * value + up
