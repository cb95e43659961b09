"""Two resolutions at once: coarse pretrained context and a light fine branch. An ablation."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn
from torch.nn import functional as F

from networks import EfficientNetLiteEncoder

__all__ = ["CoarseEncoder", "TwoResolutionsEncoder"]


class CoarseEncoder(nn.Module):
    """EfficientNet-lite0 on the image at half its resolution; see `networks.Encoder`.

    Args:
        strides: of the halved image's pixels.
        finest: give the finest level at twice the resolution, each cell four times, so that it has the stride of the
            network's map.
    """

    def __init__(self, strides: Sequence[int] = (8, 16, 32), finest: bool = False) -> None:
        super().__init__()
        self.net = EfficientNetLiteEncoder(strides)
        self.repeated = finest
        self.strides = tuple(2 * s // (2 if finest and not level else 1) for level, s in enumerate(strides))
        self.channels = self.net.channels
        self.grid_px = 2 * self.net.grid_px

    def forward(self, image: torch.Tensor) -> list[torch.Tensor]:
        """(B, 3, H, W) -> list of (B, C_l, H / s_l, W / s_l)."""
        levels = list(self.net(F.avg_pool2d(image, 2)))
        if self.repeated:
            levels[0] = F.interpolate(levels[0], scale_factor=2)
        return levels

    def input_margin_px(self, level: int, margin_px: int) -> int:
        """A cell of the finest level may stand for its neighbour beside it."""
        return 2 * self.net.input_margin_px(level, -(-margin_px // 2)) + (self.strides[0] if self.repeated else 0)


class TwoResolutionsEncoder(nn.Module):
    """`CoarseEncoder`, and three convolutions from scratch at the image's own resolution above it.

    Args:
        channels: of the fine branch's convolutions, to strides 2, 4 and 8.
    """

    def __init__(self, channels: Sequence[int] = (16, 32, 64)) -> None:
        super().__init__()
        self.coarse = CoarseEncoder()
        layers, before = [], 3
        for after in channels:
            layers += [nn.Conv2d(before, after, 3, stride=2, padding=1), nn.GELU()]
            before = after
        self.fine = nn.Sequential(*layers)
        self.strides = (8, *self.coarse.strides)
        self.channels = (before, *self.coarse.channels)
        self.grid_px = self.coarse.grid_px

    def forward(self, image: torch.Tensor) -> list[torch.Tensor]:
        """(B, 3, H, W) -> list of (B, C_l, H / s_l, W / s_l), finest first."""
        return [self.fine(image), *self.coarse(image)]

    def input_margin_px(self, level: int, margin_px: int) -> int:
        """See `networks.Encoder`."""
        if level:
            return self.coarse.input_margin_px(level - 1, margin_px)
        return -(-margin_px // 8) * 8 + 7
