"""A dictionary of small patches, learned from the training slides without labels: features that need no other file."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from itertools import pairwise
from typing import cast

import numpy as np
import torch
from monai.data import MetaTensor
from sklearn.cluster import MiniBatchKMeans
from sklearn.decomposition import PCA
from torch import nn
from torch.nn import functional as F

from ..pieces import is_whole, pieces
from .errors import TooLittleError

__all__ = ["KMeansPatchEncoder"]

#: Beyond a cell on each side.
_OVERLAP_PX = 1
_PATCHES_PER_IMAGE = 2000
#: Patches whose mean optical density is less show glass.
_GLASS_DENSITY = 0.12
#: Whitened patches keep so much of their variance; the rest is the scanner's noise.
_VARIANCE_KEPT = 0.999
#: How alike, in standard deviations of whitened patches, a patch must be for a feature to be above zero.
_THRESHOLD = 0.5
#: Added before a square root, whose slope has no bound at zero.
_FAINT = 1e-3


class KMeansPatchEncoder(nn.Module):
    """How much of each patch of a dictionary an image shows, and square roots of the mean of that over larger cells.

    After Coates, Lee & Ng 2011 (https://proceedings.mlr.press/v15/coates11a.html): patches of optical density are
    whitened and clustered, and the whitened centres are the filters of one convolution with a threshold. Means over
    larger cells are bags of patches, whose square roots compare better (Arandjelović & Zisserman 2012,
    https://doi.org/10.1109/CVPR.2012.6248018). Nothing pretrained is needed.

    Args:
        strides: pixels per cell of each level, finest first, each a multiple of the one before.
        n_patches: patches of the dictionary.
        mean: what was subtracted from intensities of 0 to 255, for red, green and blue.
        std: what they were divided by then.

    Attributes:
        strides: pixels per cell of each level.
        channels: channels of each level.
        grid_px: the coarsest stride.

    Raises:
        ValueError: if a stride is no multiple of the one before.
    """

    mean: torch.Tensor
    std: torch.Tensor

    def __init__(
        self,
        strides: Sequence[int] = (4, 32, 64),
        n_patches: int = 128,
        mean: Sequence[float] = (0.0, 0.0, 0.0),
        std: Sequence[float] = (1.0, 1.0, 1.0),
    ) -> None:
        super().__init__()
        if not strides or any(b % a for a, b in pairwise(strides)):
            raise ValueError(f"strides={list(strides)}: each must be a multiple of the one before.")
        self.strides = tuple(strides)
        self.channels = (n_patches,) * len(self.strides)
        self.grid_px = self.strides[-1]
        self.register_buffer("mean", torch.tensor(mean).view(3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(std).view(3, 1, 1), persistent=False)
        self.conv = nn.Conv2d(3, n_patches, self.strides[0] + 2 * _OVERLAP_PX, stride=self.strides[0])

    def forward(self, image: torch.Tensor) -> list[torch.Tensor]:
        """(B, 3, H, W), H and W multiples of `grid_px` -> list of (B, n_patches, H / s, W / s), finest first."""
        return self.reduced(image, None)

    def reduced(self, image: torch.Tensor, weight: torch.Tensor | None) -> list[torch.Tensor]:
        """The same, the finest level multiplied by `weight`, (R, n_patches, 1, 1), as it comes: never there whole."""
        finest, means = [], []
        for band in self._bands(image):
            finest.append(band if weight is None else F.conv2d(band, weight))
            means.append(F.avg_pool2d(band, self._step()))
        levels, mean = [torch.cat(finest, dim=2)], torch.cat(means, dim=2)
        for level, (fine, coarse) in enumerate(pairwise(self.strides)):
            mean = F.avg_pool2d(mean, coarse // fine) if level else mean
            levels.append((mean + _FAINT).sqrt())
        return levels

    def input_margin_px(self, level: int, margin_px: int) -> int:
        """Whole cells, and what their patches overlap."""
        stride = self.strides[level]
        return -(-margin_px // stride) * stride + _OVERLAP_PX

    @torch.no_grad()
    def learn(self, images: Iterable[torch.Tensor], seed: int = 0) -> None:
        """Choose the dictionary.

        Args:
            images: crops of training slides as the network sees them, (3, H, W) each; some thousands of patches do.
            seed: of the patches drawn and of the clustering.

        Raises:
            TooLittleError: if they show less tissue than there are patches to choose.
        """
        rng = np.random.default_rng(seed)
        patches = np.concatenate([self._draw(image, rng) for image in images])
        n, size = len(self.conv.weight), self.conv.kernel_size
        if len(patches) < n:
            raise TooLittleError(f"{len(patches)} patches of tissue are too few for a dictionary of {n}.")
        whitening = PCA(_VARIANCE_KEPT, whiten=True, svd_solver="full", random_state=seed).fit(patches)
        centres = MiniBatchKMeans(n, n_init=1, random_state=seed).fit(whitening.transform(patches)).cluster_centers_
        centres /= np.linalg.norm(centres, axis=1, keepdims=True) + 1e-12
        filters = centres @ (whitening.components_ / np.sqrt(whitening.explained_variance_)[:, None])
        self.conv.weight.copy_(torch.from_numpy(filters).view(n, 3, *size))
        cast(torch.Tensor, self.conv.bias).copy_(torch.from_numpy(-filters @ whitening.mean_ - _THRESHOLD))

    def _bands(self, image: torch.Tensor) -> Iterator[torch.Tensor]:
        """The finest level from top to bottom, in bands of whole cells of the next."""
        image = F.pad(image, (_OVERLAP_PX,) * 4, mode="replicate")
        height, width = (size // self.strides[0] for size in image.shape[-2:])
        step = self._step()
        rows_px = step * self.strides[0]
        bands = [slice(0, height // step)] if is_whole(self, image) else pieces(height // step, step * width)
        for rows in bands:
            stop_px = rows.stop * rows_px + 2 * _OVERLAP_PX
            yield self.conv(self._density(image[..., rows.start * rows_px : stop_px, :])).relu()

    def _step(self) -> int:
        """Cells of the finest level along a cell of the next."""
        return self.strides[1] // self.strides[0] if len(self.strides) > 1 else 1

    def _density(self, image: torch.Tensor) -> torch.Tensor:
        """Optical density (natural logarithm) of normalised intensities."""
        return math.log(256) - ((image * self.std + self.mean).clamp(min=0) + 1).log()

    def _draw(self, image: torch.Tensor, rng: np.random.Generator) -> np.ndarray:
        """Some of an image's patches of tissue, (N, 3 * side * side)."""
        if isinstance(image, MetaTensor):
            image = image.as_tensor()
        density = self._density(image.to(self.mean)[None])
        patches = F.unfold(density, self.conv.kernel_size, stride=self.strides[0])[0].T.cpu().numpy()
        patches = patches[patches.mean(1) > _GLASS_DENSITY]
        return patches[rng.permutation(len(patches))[:_PATCHES_PER_IMAGE]]
