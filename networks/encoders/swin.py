"""A 2-D Swin encoder of MONAI's parts that gives the features of each stage before they are merged."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence

import torch
from monai.networks.blocks import PatchEmbed
from monai.networks.layers import trunc_normal_
from monai.networks.nets.swin_unetr import PatchMergingV2
from torch import nn

from ..banded import SwinStage
from .state_file import read_state
from .swin_weights import SwinShape, rename_swin, swin_shape

__all__ = ["SwinEncoder", "swin_margin_px"]


class SwinEncoder(nn.Module):
    """A 2-D Swin Transformer with any number of stages, from scratch or from weights of timm or transformers.

    Liu et al. 2021, https://arxiv.org/abs/2103.14030. MONAI's `SwinTransformer` has four stages and returns each
    **after** merging, so that its finest map is the bare patch embedding. This returns what the attention blocks wrote,
    each with a LayerNorm of its own (as Swin's detection backbones do). Modules are named as in the original
    (`patch_embed`, `layers.i.blocks.j`), except `mlp.linear1/2` for `fc1/2`, and merging, which is in
    `downsamples`.

    Args:
        in_channels: channels of the image.
        embed_dim: channels of the first stage; they double with each.
        depths: blocks per stage; odd ones have shifted windows.
        num_heads: attention heads per stage.
        window_size: side of an attention window, in map pixels of each stage.
        patch_size: side of a patch in pixels, the stride of the first stage.
        drop_path_rate: stochastic depth of the last block; rises linearly from 0 at the first.
        weights: a local file (`.pt`, `.pth`, `.safetensors`) with a Swin's state dict as timm, the original repository
            or transformers name it, of the same shape; it may have more stages. Normalise intensities as it was
            trained (ImageNet: mean 123.675, 116.28, 103.53 and std 58.395, 57.12, 57.375).

    Attributes:
        strides: image pixels per map pixel of each stage.
        channels: channels of each stage.
        grid_px: a window of the last stage in pixels. On inputs and tile origins that are multiples of it, all window
            partitions fall on the same pixels of the slide.

    Raises:
        ValueError: if `depths` and `num_heads` differ in length, channels do not divide by heads, or the weights are
            not of this encoder.
        MissingExtraError: if the weights are `.safetensors` and that package is missing.
    """

    def __init__(
        self,
        in_channels: int = 3,
        embed_dim: int = 48,
        depths: Sequence[int] = (2, 2, 2, 2),
        num_heads: Sequence[int] = (3, 6, 12, 24),
        window_size: int = 8,
        patch_size: int = 4,
        drop_path_rate: float = 0.1,
        weights: str | None = None,
    ) -> None:
        super().__init__()
        if len(depths) != len(num_heads):
            raise ValueError(
                f"depths has {len(depths)} stages and num_heads {len(num_heads)}: give one each per stage."
            )
        self.depths = tuple(depths)
        self.window_size = window_size
        self.strides = tuple(patch_size * 2**i for i in range(len(depths)))
        self.channels = tuple(embed_dim * 2**i for i in range(len(depths)))
        self.grid_px = window_size * self.strides[-1]
        for channels, heads in zip(self.channels, num_heads, strict=True):
            if channels % heads:
                raise ValueError(
                    f"A stage of {channels} channels cannot be split into {heads} heads: change num_heads."
                )

        patch_embed = PatchEmbed(patch_size, in_channels, embed_dim, nn.LayerNorm, spatial_dims=2)
        drop_path = torch.linspace(0, drop_path_rate, sum(depths)).tolist()
        self.layers = nn.ModuleList(
            SwinStage(
                dim=self.channels[i],
                depth=depth,
                num_heads=num_heads[i],
                window_size=(window_size, window_size),
                drop_path=drop_path[sum(depths[:i]) : sum(depths[: i + 1])],
                qkv_bias=True,
                use_flash_attention=True,
            )
            for i, depth in enumerate(depths)
        )
        self.downsamples = nn.ModuleList(PatchMergingV2(c, spatial_dims=2) for c in self.channels[:-1])
        self.norms = nn.ModuleList(nn.LayerNorm(c) for c in self.channels)
        self.apply(_init_linear)
        self.patch_embed = patch_embed  # last: the states of optimisers number parameters in this order
        if weights is not None:
            shape = SwinShape(embed_dim, self.depths, tuple(num_heads), window_size, patch_size)
            self._load(weights, shape)

    def forward(self, image: torch.Tensor) -> list[torch.Tensor]:
        """Features of each stage, finest first.

        Args:
            image: (B, in_channels, H, W); H and W multiples of `grid_px`, else windows are filled up with zeros.

        Returns:
            One (B, channels[l], H / strides[l], W / strides[l]) per stage.
        """
        x = self.patch_embed(image)
        features = []
        for level, (layer, norm) in enumerate(zip(self.layers, self.norms, strict=True)):
            if level:
                x = self.downsamples[level - 1](x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
            x = layer(x)
            features.append(norm(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2))
        return features

    def input_margin_px(self, level: int, margin_px: int) -> int:
        """See `Encoder`."""
        windows_px = [self.window_size * s for s in self.strides[: level + 1]]
        return swin_margin_px(margin_px, windows_px, self.depths[: level + 1])

    def _load(self, path: str, shape: SwinShape) -> None:
        """Take what the file has of this encoder; norms of stages that it lacks stay as they are."""
        state = read_state(path)
        try:
            found = rename_swin(state)
            there = swin_shape(found)
        except ValueError as error:
            raise ValueError(f"{path} {error}") from error
        stages = len(shape.depths)
        if there._replace(depths=there.depths[:stages], num_heads=there.num_heads[:stages]) != shape:
            raise ValueError(
                f"{path} holds a Swin of {there}, and this encoder is of {shape}. Set them alike (the first stages are "
                "enough), or weights to null."
            )
        own = self.state_dict()
        found = {name: value for name, value in found.items() if not _is_beyond(name, stages)}
        missing = [n for n in own if n not in found and not n.startswith("norms.") and "position_index" not in n]
        strange = [n for n in found if n not in own]
        unlike = [n for n in found if n in own and found[n].shape != own[n].shape]
        for names, what in ((missing, "lacks"), (strange, "has besides"), (unlike, "has in another shape")):
            if names:
                raise ValueError(
                    f"{path} {what} {', '.join(names[:3])}{f' and {len(names) - 3} more' if names[3:] else ''}: it is "
                    "no plain Swin Transformer of this shape. Give another file, or set weights to null."
                )
        self.load_state_dict(found, strict=False)


def _is_beyond(name: str, stages: int) -> bool:
    """Whether a weight belongs to a stage after the first `stages`, or leads there."""
    match = re.match(r"(layers|norms|downsamples)\.(\d+)\.", name)
    return match is not None and int(match[2]) >= stages - (match[1] == "downsamples")


def swin_margin_px(margin_px: int, windows_px: Sequence[int], depths: Sequence[int]) -> int:
    """Walk from the output of the last stage to the image, widening `margin_px` to whole windows at each block.

    The core's edges lie on window edges, so a shifted window reaches half a window beyond them: a decoder that reads up
    to half a window of neighbours costs nothing.

    Args:
        margin_px: how far beyond the core the output of the last stage is needed.
        windows_px: side of a window of each stage in input pixels, finest first.
        depths: blocks of each stage.
    """
    for window_px, depth in zip(reversed(windows_px), reversed(depths), strict=True):
        for block in reversed(range(depth)):
            shift_px = window_px // 2 if block % 2 else 0
            margin_px = max(math.ceil((margin_px - shift_px) / window_px), 0) * window_px + shift_px
    return margin_px


def _init_linear(module: nn.Module) -> None:
    if isinstance(module, nn.Linear):
        trunc_normal_(module.weight, std=0.02)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
