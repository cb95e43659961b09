"""A pyramid of features from one map."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

__all__ = ["SimplePyramid"]

_FACTORS = (4, 2, 1, 0.5)


class SimplePyramid(nn.Module):
    """ViTDet's simple feature pyramid (Li et al. 2022, https://arxiv.org/abs/2203.16527) for a plain transformer.

    Each level is the one map brought to its size by 2x2 deconvolutions or a max pool, neither of which reads another
    token, then 1x1 and 3x3 convolutions, each with a LayerNorm over channels. The 3x3 reads one map pixel beyond.

    Args:
        in_channels: channels of the map.
        factors: map pixels per token along one side at each level: 4, 2, 1 or 1/2.
        channels: channels of every level.

    Raises:
        ValueError: if a factor is none of these.
    """

    def __init__(self, in_channels: int, factors: Sequence[float], channels: int) -> None:
        super().__init__()
        if not set(factors) <= set(_FACTORS):
            raise ValueError(f"Levels have 4, 2, 1 or 1/2 map pixels per token along one side, not {list(factors)}.")
        self.levels = nn.ModuleList(_level(in_channels, factor, channels) for factor in factors)

    def forward(self, maps: Sequence[torch.Tensor]) -> list[torch.Tensor]:
        """One (B, in_channels, h, w) per level -> list of (B, channels, h * factor, w * factor)."""
        return [level(x) for level, x in zip(self.levels, maps, strict=True)]


class _ChannelNorm(nn.LayerNorm):
    """LayerNorm over the channels of (B, C, h, w), at each map pixel alone."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


def _level(in_channels: int, factor: float, channels: int) -> nn.Sequential:
    parts: list[nn.Module] = []
    width = in_channels
    while factor > 1:
        parts += [nn.ConvTranspose2d(width, width // 2, 2, stride=2)]
        width, factor = width // 2, factor / 2
        if factor > 1:
            parts += [_ChannelNorm(width), nn.GELU()]
    if factor < 1:
        parts += [nn.MaxPool2d(2)]
    parts += [nn.Conv2d(width, channels, 1, bias=False), _ChannelNorm(channels)]
    parts += [nn.Conv2d(channels, channels, 3, padding=1, bias=False), _ChannelNorm(channels)]
    return nn.Sequential(*parts)
