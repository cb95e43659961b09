"""Compute a large map piece by piece at inference: its intermediates then stay in the cache, and peak memory falls."""

from __future__ import annotations

from collections.abc import Iterator
from typing import cast

import torch
from monai.networks.nets.swin_unetr import BasicLayer, SwinTransformerBlock, compute_mask
from torch import nn
from torch.nn import functional as F

__all__ = ["PiecewiseLayer", "conv_rows", "is_whole", "pieces"]

_CELLS = 4096  # of a map computed at once: a few megabytes for each layer


def is_whole(module: nn.Module, x: torch.Tensor) -> bool:
    """Whether pieces would not help: in training, where all is kept; on a GPU; where an export traces the network."""
    traced = torch.jit.is_tracing() or torch.compiler.is_compiling() or torch.onnx.is_in_onnx_export()
    return traced or module.training or torch.is_grad_enabled() or x.device.type != "cpu"


def pieces(n: int, cells_each: int) -> Iterator[slice]:
    """Parts of `n` items in a row (windows, rows, cells) of `cells_each` cells, `_CELLS` cells at most."""
    step = max(_CELLS // cells_each, 1)
    for first in range(0, n, step):
        yield slice(first, min(first + step, n))


def conv_rows(conv: nn.Conv2d, band: torch.Tensor, is_first: bool, is_last: bool) -> torch.Tensor:
    """A 3x3 convolution of some rows of a map, of which `band` has one more on each side; zeros beyond the map."""
    band = F.pad(band, (0, 0, int(is_first), int(is_last)))
    return F.conv2d(band, conv.weight, conv.bias, padding=(0, 1), groups=conv.groups)


class PiecewiseLayer(BasicLayer):
    """MONAI's stage of a 2-D Swin, over some rows of windows at a time, in one copy of the map.

    A window's cells depend on that window alone, so each is written back where it was read. The mask of shifted
    windows, which MONAI makes for all of them, is needed along the lower and right edges alone.
    """

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(B, C, h, w) -> (B, C, h, w)."""
        side = self.window_size[0]
        assert self.downsample is None
        assert set(self.window_size) == {side}
        if is_whole(self, x) or any(size % side or size == side for size in x.shape[2:]):
            return super().forward(x)
        cells = x.permute(0, 2, 3, 1).clone(memory_format=torch.contiguous_format)
        for block in self.blocks:
            _attend(cast(SwinTransformerBlock, block), cells, side)
        return cells.permute(0, 3, 1, 2)


def _attend(block: SwinTransformerBlock, cells: torch.Tensor, side: int) -> None:
    """Write a block's result over its input, (B, h, w, C)."""
    height, width = cells.shape[1:3]
    shift = block.shift_size[0]
    masks = compute_mask([2 * side] * 2, [side] * 2, [shift] * 2, cells.device) if shift else None
    last = height // side - 1
    strips = [*pieces(last, side * width), slice(last, last + 1)]  # the last row of windows has masks of its own
    for rows in strips:
        places = [slice(rows.start * side + shift, rows.stop * side + shift)]
        if places[0].stop > height:  # windows at the lower edge go on at the upper
            places = [slice(places[0].start, height), slice(0, places[0].stop - height)]
        strip = torch.cat([cells[:, place] for place in places], dim=1).roll(-shift, dims=2)
        own = None if masks is None else (None, masks[1:2]) if rows.start < last else (masks[2:3], masks[3:4])
        strip = strip + _attention(block, block.norm1(strip), side, own)
        strip = (strip + block.mlp(block.norm2(strip))).roll(shift, dims=2)
        for place, part in zip(places, strip.split([p.stop - p.start for p in places], dim=1), strict=True):
            cells[:, place] = part


def _attention(
    block: SwinTransformerBlock, strip: torch.Tensor, side: int, masks: tuple[torch.Tensor | None, torch.Tensor] | None
) -> torch.Tensor:
    """Attention in the windows of a strip, (B, h, w, C); `masks` are those of all windows but the last and its own."""
    split = (strip.shape[0], strip.shape[1] // side, side, strip.shape[2] // side, side, strip.shape[3])
    windows = strip.view(split).transpose(2, 3).flatten(3, 4)  # (B, rows, columns, cells, C)
    if masks is None:
        done = block.attn(windows.flatten(0, 2), None).view(windows.shape)
    else:
        parts = zip((windows[:, :, :-1], windows[:, :, -1:]), masks, strict=True)
        done = torch.cat([block.attn(part.flatten(0, 2), mask).view(part.shape) for part, mask in parts], dim=2)
    return done.unflatten(3, (side, side)).transpose(2, 3).reshape(strip.shape)
