"""MONAI's SwinUNETR with PixNet's heads, for comparison."""

from __future__ import annotations

import math
from typing import Literal

import torch
from monai.networks.nets import SwinUNETR

from .encoders.swin import swin_margin_px
from .heads import build_head
from .pixnet import ExpressionModel

__all__ = ["PlainSwinUNETR"]

_DEPTH = 2  # blocks a stage
_STAGE_STRIDES = (2, 4, 8, 16)


class PlainSwinUNETR(ExpressionModel):
    """`monai.networks.nets.SwinUNETR` in 2-D, with a map of stride 1. It is slower than `PixNet`.

    It has BatchNorm in place of instance norm, whose statistics would depend on the tile.

    Args:
        n_genes: genes of the panel.
        feature_size: channels of the finest level, a multiple of 12; also of the map.
        head: `linear` for one unit size or `programs` for rates that add up over any.
        n_programs: programs of the head `programs`.
        window_size: side of an attention window, in map pixels of each stage.
    """

    def __init__(
        self,
        n_genes: int = 250,
        feature_size: int = 24,
        head: Literal["linear", "programs"] = "linear",
        n_programs: int = 32,
        window_size: int = 8,
    ) -> None:
        super().__init__(build_head(head, feature_size, n_genes, n_programs))
        self.backbone = SwinUNETR(
            in_channels=3,
            out_channels=feature_size,
            depths=(_DEPTH,) * len(_STAGE_STRIDES),
            window_size=window_size,
            feature_size=feature_size,
            norm_name="batch",
            spatial_dims=2,
            use_flash_attention=True,
        )
        self.stride = 1
        self.grid_px = math.lcm(window_size * _STAGE_STRIDES[-1], 32)
        self.halo_px = _halo_px(window_size)

    def decode(self, image: torch.Tensor) -> torch.Tensor:
        """See `ExpressionModel`."""
        return self.backbone(image)


def _halo_px(window_size: int) -> int:
    """Walk down SwinUNETR's decoder: two 3x3 convolutions at each level, and two more on each skip but the fourth."""
    need_px, halo_px = 0, 0
    windows_px = [window_size * s for s in _STAGE_STRIDES]
    for level, stride in enumerate((1, 2, 4, 8, 16, 32)):
        need_px = math.ceil(need_px / stride) * stride + 2 * stride
        skip_px = need_px if level >= 4 else need_px + 2 * stride
        n_stages = max(level - 1, 0)
        halo_px = max(halo_px, swin_margin_px(skip_px, windows_px[:n_stages], (_DEPTH,) * n_stages))
    return halo_px
