"""Band by band: compute a large map at inference a few rows at a time, so that intermediates stay small.

Only memory and speed are at stake. Each function here has a plain twin that gives the same values; the tests compare
them. Training, GPUs and exports use the twin. On a tile of 2048 px with two cores one pass of the default network peaks
at 353 MB with bands and at 1,697 MB without, in about the same time: `python -m benchmarks.bands`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import cast

import torch
from monai.networks.nets.swin_unetr import BasicLayer, SwinTransformerBlock, compute_mask
from torch import nn
from torch.nn import functional as F

__all__ = ["SwinStage", "bands", "fuse_in_bands", "pays"]

_MAP_PIXELS = 4096  # computed at once, which is a few megabytes in each layer


def pays(module: nn.Module, x: torch.Tensor) -> bool:
    """Whether bands help: on a CPU, without gradients, outside of an export."""
    traced = torch.jit.is_tracing() or torch.compiler.is_compiling() or torch.onnx.is_in_onnx_export()
    return not (traced or module.training or torch.is_grad_enabled()) and x.device.type == "cpu"


def bands(n: int, pixels_each: int) -> Iterator[slice]:
    """Cut `n` rows of `pixels_each` map pixels into bands of at most `_MAP_PIXELS`, at least one row each."""
    step = max(_MAP_PIXELS // pixels_each, 1)
    for first in range(0, n, step):
        yield slice(first, min(first + step, n))


def fuse_in_bands(
    depthwise: nn.Conv2d,
    fuse: Callable[[torch.Tensor, torch.Tensor], torch.Tensor],
    skip: torch.Tensor,
    up: torch.Tensor,
) -> torch.Tensor:
    """`fuse(depthwise(skip), up)` for a pointwise `fuse`, written over `up`: the decoder does not need it again.

    Args:
        depthwise: a 3x3 convolution with zeros beyond the map.
        fuse: what `networks.SAFB` does at each map pixel.
        skip: (B, skip_channels, h, w).
        up: (B, channels, h, w); overwritten.
    """
    height = skip.shape[2]
    for rows in bands(height, skip.shape[3]):
        band = skip[:, :, max(rows.start - 1, 0) : rows.stop + 1]  # the convolution reads one row beyond
        band = F.pad(band, (0, 0, int(rows.start == 0), int(rows.stop == height)))
        separable = F.conv2d(band, depthwise.weight, depthwise.bias, padding=(0, 1), groups=depthwise.groups)
        up[:, :, rows] = fuse(separable, up[:, :, rows])
    return up


class SwinStage(BasicLayer):
    """MONAI's stage of a 2-D Swin, a few rows of windows at a time, in one copy of the map. Its twin is `BasicLayer`.

    The output of a window depends on that window alone, so each is written back where it was read. MONAI makes the
    mask of shifted windows for all of them; only the windows along the lower and right edges need it.
    """

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(B, C, h, w) -> (B, C, h, w)."""
        side = self.window_size[0]
        assert self.downsample is None
        assert set(self.window_size) == {side}
        if not pays(self, x) or any(size % side or size == side for size in x.shape[2:]):
            return super().forward(x)
        pixels = x.permute(0, 2, 3, 1).clone(memory_format=torch.contiguous_format)
        for block in self.blocks:
            _attend(cast(SwinTransformerBlock, block), pixels, side)
        return pixels.permute(0, 3, 1, 2)


def _attend(block: SwinTransformerBlock, pixels: torch.Tensor, side: int) -> None:
    """Write a block's output over its input, (B, h, w, C)."""
    height, width = pixels.shape[1:3]
    shift = block.shift_size[0]
    masks = compute_mask([2 * side] * 2, [side] * 2, [shift] * 2, pixels.device) if shift else None
    last = height // side - 1
    strips = [*bands(last, side * width), slice(last, last + 1)]  # the last row of windows has masks of its own
    for rows in strips:
        places = [slice(rows.start * side + shift, rows.stop * side + shift)]
        if places[0].stop > height:  # windows at the lower edge continue at the upper one
            places = [slice(places[0].start, height), slice(0, places[0].stop - height)]
        strip = torch.cat([pixels[:, place] for place in places], dim=1).roll(-shift, dims=2)
        own = None if masks is None else (None, masks[1:2]) if rows.start < last else (masks[2:3], masks[3:4])
        strip = strip + _attention(block, block.norm1(strip), side, own)
        strip = (strip + block.mlp(block.norm2(strip))).roll(shift, dims=2)
        for place, part in zip(places, strip.split([p.stop - p.start for p in places], dim=1), strict=True):
            pixels[:, place] = part


def _attention(
    block: SwinTransformerBlock, strip: torch.Tensor, side: int, masks: tuple[torch.Tensor | None, torch.Tensor] | None
) -> torch.Tensor:
    """Attention in the windows of a strip, (B, h, w, C).

    `masks` are the mask of all windows but the last in the row, and the last one's.
    """
    split = (strip.shape[0], strip.shape[1] // side, side, strip.shape[2] // side, side, strip.shape[3])
    windows = strip.view(split).transpose(2, 3).flatten(3, 4)  # (B, rows, columns, pixels, C)
    if masks is None:
        done = block.attn(windows.flatten(0, 2), None).view(windows.shape)
    else:
        parts = zip((windows[:, :, :-1], windows[:, :, -1:]), masks, strict=True)
        done = torch.cat([block.attn(part.flatten(0, 2), mask).view(part.shape) for part, mask in parts], dim=2)
    return done.unflatten(3, (side, side)).transpose(2, 3).reshape(strip.shape)
