"""Compute a large map piece by piece at inference: its intermediates then stay in the cache, and peak memory falls."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from monai.networks.blocks import MLPBlock
from monai.networks.nets.swin_unetr import WindowAttention
from torch import nn

__all__ = ["PiecewiseAttention", "PiecewiseMLP", "is_whole", "pieces"]

_CELLS = 4096  # of a map computed at once: a few megabytes for each layer


def is_whole(module: nn.Module, x: torch.Tensor) -> bool:
    """Whether pieces would not help: in training, where all is kept; on a GPU; where an export traces the network."""
    traced = torch.jit.is_tracing() or torch.compiler.is_compiling() or torch.onnx.is_in_onnx_export()
    return traced or module.training or torch.is_grad_enabled() or x.device.type != "cpu"


def pieces(n: int, cells_each: int) -> Iterator[slice]:
    """Parts of `n` items in a row (windows, rows, cells) of `cells_each` cells, `_CELLS` cells at most."""
    step = max(_CELLS // cells_each, 1)
    for first in range(0, n, step):
        yield slice(first, first + step)


class PiecewiseMLP(MLPBlock):
    """MONAI's, over some cells at a time."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(..., C) -> (..., C)."""
        if is_whole(self, x):
            return super().forward(x)
        cells = x.flatten(0, -2)
        done = [super(PiecewiseMLP, self).forward(cells[part]) for part in pieces(len(cells), 1)]
        return torch.cat(done).view(x.shape)


class PiecewiseAttention(WindowAttention):
    """MONAI's, over some windows at a time."""

    def forward(self, x: torch.Tensor, mask: torch.Tensor | None) -> torch.Tensor:
        """Windows (N, cells, C) and the mask of shifted ones (N of one image, cells, cells) -> (N, cells, C)."""
        if is_whole(self, x):
            return super().forward(x, mask)
        done = [
            super(PiecewiseAttention, self).forward(windows[part], None if mask is None else mask[part])
            for windows in x.split(len(x) if mask is None else len(mask))
            for part in pieces(len(windows), x.shape[1])
        ]
        return torch.cat(done)
