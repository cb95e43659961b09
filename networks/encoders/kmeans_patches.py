"""Similarity to small patches that k-means chooses on the training slides, without labels or pretrained weights."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from itertools import pairwise
from typing import cast

import numpy as np
import torch
from monai.data import MetaTensor
from sklearn.cluster import MiniBatchKMeans
from sklearn.decomposition import PCA
from torch import nn
from torch.nn import functional as F

from ..banded import bands, pays
from .errors import TooLittleError

__all__ = ["KMeansPatchEncoder"]

#: How far a patch reaches beyond its map pixel on each side.
_OVERLAP_PX = 1
_PATCHES_PER_IMAGE = 2000
#: A patch whose mean optical density is lower shows glass.
_GLASS_DENSITY = 0.12
#: Share of the patches' variance that whitening keeps; the rest is the scanner's noise.
_VARIANCE_KEPT = 0.999
#: Similarity, in standard deviations of whitened patches, from which a feature is above zero.
_THRESHOLD = 0.5
#: Added before the square root, whose slope is unbounded at zero.
_FAINT = 1e-3


class KMeansPatchEncoder(nn.Module):
    """Similarity of each pixel's neighbourhood to k learned patches, plus its root mean over larger windows.

    `learn` whitens patches of optical density and clusters them with k-means. The whitened centres become the filters
    of one convolution with a threshold (Coates & Ng 2012, https://doi.org/10.1007/978-3-642-35289-8_30). Means over
    larger windows are bags of patches, whose square roots compare better (Arandjelović & Zisserman 2012,
    https://doi.org/10.1109/CVPR.2012.6248018).

    Args:
        strides: image pixels per map pixel of each level, finest first, each a multiple of the one before.
        n_patches: number of patches, k.
        mean: what the transforms subtracted from intensities of 0 to 255, for red, green and blue.
        std: what the transforms divided them by afterwards.

    Attributes:
        strides: image pixels per map pixel of each level.
        channels: channels of each level.
        grid_px: the coarsest stride.

    Raises:
        ValueError: if a stride is not a multiple of the one before.
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
        finest = self._similarity(self._padded(image))
        return [finest, *self._bags(F.avg_pool2d(finest, self._step))]

    def reduced(self, image: torch.Tensor, weight: torch.Tensor) -> list[torch.Tensor]:
        """As `forward`, with a 1x1 convolution of the finest level by `weight`, (R, n_patches, 1, 1).

        Works band by band, so that the finest level never exists as a whole.
        """
        image, step = self._padded(image), self._step
        rows_px = step * self.strides[0]
        height, width = image.shape[-2] // rows_px, image.shape[-1] // rows_px
        finest, means = [], []
        for rows in bands(height, step**2 * width) if pays(self, image) else [slice(0, height)]:
            band_px = slice(rows.start * rows_px, rows.stop * rows_px + 2 * _OVERLAP_PX)
            band = self._similarity(image[..., band_px, :])
            finest.append(F.conv2d(band, weight))
            means.append(F.avg_pool2d(band, step))
        return [torch.cat(finest, dim=2), *self._bags(torch.cat(means, dim=2))]

    def input_margin_px(self, level: int, margin_px: int) -> int:
        """See `Encoder`: whole map pixels, and how far their patches overlap."""
        stride = self.strides[level]
        return -(-margin_px // stride) * stride + _OVERLAP_PX

    @torch.no_grad()
    def learn(self, images: Iterable[torch.Tensor], seed: int = 0) -> None:
        """Choose the patches.

        Args:
            images: crops of training slides as the network sees them, (3, H, W) each. A few thousand patches of tissue
                suffice.
            seed: for drawing patches and for k-means.

        Raises:
            TooLittleError: if the crops show fewer patches of tissue than `n_patches`.
        """
        rng = np.random.default_rng(seed)
        patches = np.concatenate([self._draw(image, rng) for image in images])
        n, size = len(self.conv.weight), self.conv.kernel_size
        if len(patches) < n:
            raise TooLittleError(f"{len(patches)} patches of tissue are too few to choose {n} from.")
        whitening = PCA(_VARIANCE_KEPT, whiten=True, svd_solver="full", random_state=seed).fit(patches)
        centres = MiniBatchKMeans(n, n_init=1, random_state=seed).fit(whitening.transform(patches)).cluster_centers_
        centres /= np.linalg.norm(centres, axis=1, keepdims=True) + 1e-12
        filters = centres @ (whitening.components_ / np.sqrt(whitening.explained_variance_)[:, None])
        self.conv.weight.copy_(torch.from_numpy(filters).view(n, 3, *size))
        cast(torch.Tensor, self.conv.bias).copy_(torch.from_numpy(-filters @ whitening.mean_ - _THRESHOLD))

    @property
    def _step(self) -> int:
        """Map pixels of the finest level along one of the next level."""
        return self.strides[1] // self.strides[0] if len(self.strides) > 1 else 1

    def _padded(self, image: torch.Tensor) -> torch.Tensor:
        return F.pad(image, (_OVERLAP_PX,) * 4, mode="replicate")

    def _similarity(self, padded: torch.Tensor) -> torch.Tensor:
        """The finest level of a padded image."""
        return self.conv(self._density(padded)).relu()

    def _bags(self, mean: torch.Tensor) -> list[torch.Tensor]:
        """The coarser levels, from the mean of the finest over map pixels of the second."""
        levels = []
        for level, (fine, coarse) in enumerate(pairwise(self.strides)):
            mean = F.avg_pool2d(mean, coarse // fine) if level else mean
            levels.append((mean + _FAINT).sqrt())
        return levels

    def _density(self, image: torch.Tensor) -> torch.Tensor:
        """Optical density (natural logarithm) of normalised intensities."""
        return math.log(256) - ((image * self.std + self.mean).clamp(min=0) + 1).log()

    def _draw(self, image: torch.Tensor, rng: np.random.Generator) -> np.ndarray:
        """Draw up to `_PATCHES_PER_IMAGE` of an image's patches of tissue, (N, 3 * side * side)."""
        if isinstance(image, MetaTensor):
            image = image.as_tensor()
        density = self._density(image.to(self.mean)[None])
        patches = F.unfold(density, self.conv.kernel_size, stride=self.strides[0])[0].T.cpu().numpy()
        patches = patches[patches.mean(1) > _GLASS_DENSITY]
        return patches[rng.permutation(len(patches))[:_PATCHES_PER_IMAGE]]
