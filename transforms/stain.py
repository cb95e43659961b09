"""Stain augmentation for H&E in the space of haematoxylin, eosin and a residual."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Any

import numpy as np
import torch
from monai.config import KeysCollection
from monai.config.type_definitions import NdarrayOrTensor
from monai.transforms import MapTransform, RandomizableTransform, Transform
from monai.utils import convert_to_dst_type, convert_to_tensor
from monai.utils.enums import TransformBackends
from numpy.typing import ArrayLike

__all__ = ["HEStain", "RandHEStain", "RandHEStainD", "RandHEStainDict", "RandHEStaind"]

# Optical density (R, G, B) of haematoxylin, eosin and DAB, here the residual (Ruifrok & Johnston 2001).
STAINS = torch.tensor([[0.65, 0.70, 0.29], [0.07, 0.99, 0.11], [0.27, 0.57, 0.78]], dtype=torch.float64)
STAINS = STAINS / STAINS.norm(dim=1, keepdim=True)


class HEStain(Transform):
    """Scale and shift the amounts of the stains: c' = alpha * c + beta for haematoxylin, eosin and residual.

    Amounts are natural optical densities, -ln(I / 255), unmixed with the vectors of Ruifrok & Johnston, "Quantification
    of histochemical staining by color deconvolution" (2001). alpha = 1 and beta = 0 change nothing.

    Args:
        alpha: factor of each of the three.
        beta: shift of each of the three; 0.02 turns white glass to 250.

    Example::

        paler_eosin = HEStain(alpha=(1.0, 0.8, 1.0))(image)
    """

    backend = [TransformBackends.TORCH]  # noqa: RUF012

    def __init__(self, alpha: ArrayLike = (1, 1, 1), beta: ArrayLike = (0, 0, 0)) -> None:
        self.alpha = torch.as_tensor(alpha, dtype=torch.float64)
        self.beta = torch.as_tensor(beta, dtype=torch.float64)
        if self.alpha.shape != (3,) or self.beta.shape != (3,):
            raise ValueError("alpha and beta need three numbers each: haematoxylin, eosin, residual.")

    def __call__(self, image: NdarrayOrTensor) -> NdarrayOrTensor:
        """Restain float (3, H, W), 0..255; the metadata is kept."""
        if image.ndim != 3 or image.shape[0] != 3:
            raise ValueError(f"Stains need an RGB image (3, H, W), not {tuple(image.shape)}.")
        pixels = convert_to_tensor(image, dtype=torch.float32, track_meta=False)
        # Only the change of the density is computed, so that no change is exact.
        change = (torch.linalg.inv(STAINS) * (self.alpha - 1)) @ STAINS
        density = pixels.clamp(min=1).div_(255).log_().neg_().flatten(1)
        shift = (self.beta @ STAINS).to(density)[:, None]
        factor = torch.addmm(shift, change.T.to(density), density).neg_().exp_()
        restained = (pixels * factor.view_as(pixels)).clamp_(0, 255)
        return convert_to_dst_type(restained, image, dtype=torch.float32)[0]


class RandHEStain(RandomizableTransform):
    """Draw alpha from [1 - sigma_alpha, 1 + sigma_alpha] and beta from [-sigma_beta, sigma_beta], each stain its own.

    The scheme of Tellez et al., "Whole-slide mitosis detection in H&E breast histology using PHH3 as a reference to
    train distilled stain-invariant convolutional networks" (2018).

    Args:
        prob: probability of a change.
        sigma_alpha: spread of the factors.
        sigma_beta: spread of the shifts, in natural optical density.
    """

    backend = HEStain.backend

    def __init__(self, prob: float = 0.5, sigma_alpha: float = 0.15, sigma_beta: float = 0.02) -> None:
        RandomizableTransform.__init__(self, prob)
        self.sigma_alpha = sigma_alpha
        self.sigma_beta = sigma_beta
        self.stain = HEStain()

    def randomize(self, data: Any = None) -> None:
        """Draw whether and how the stains change."""
        super().randomize(None)
        if self._do_transform:
            alpha = self.R.uniform(1 - self.sigma_alpha, 1 + self.sigma_alpha, 3)
            self.stain = HEStain(alpha, self.R.uniform(-self.sigma_beta, self.sigma_beta, 3))

    def __call__(self, image: NdarrayOrTensor, randomize: bool = True) -> NdarrayOrTensor:
        """Restain float (3, H, W), 0..255."""
        if randomize:
            self.randomize()
        return self.stain(image) if self._do_transform else image


class RandHEStaind(RandomizableTransform, MapTransform):
    """Dictionary form of `RandHEStain`; all keys get the same change.

    Args:
        keys: keys that hold an image.
        prob: probability of a change.
        sigma_alpha: spread of the factors.
        sigma_beta: spread of the shifts, in natural optical density.
        allow_missing_keys: pass over samples without a key.
    """

    backend = HEStain.backend

    def __init__(
        self,
        keys: KeysCollection,
        prob: float = 0.5,
        sigma_alpha: float = 0.15,
        sigma_beta: float = 0.02,
        allow_missing_keys: bool = False,
    ) -> None:
        MapTransform.__init__(self, keys, allow_missing_keys)
        RandomizableTransform.__init__(self, prob=1.0)
        self.restain = RandHEStain(prob, sigma_alpha, sigma_beta)

    def set_random_state(self, seed: int | None = None, state: np.random.RandomState | None = None) -> RandHEStaind:
        """Seed the draws."""
        super().set_random_state(seed, state)
        self.restain.set_random_state(seed, state)
        return self

    def __call__(self, data: Mapping[Hashable, NdarrayOrTensor]) -> dict[Hashable, NdarrayOrTensor]:
        """Return the sample with its images restained."""
        sample = dict(data)
        self.restain.randomize()
        for key in self.key_iterator(sample):
            sample[key] = self.restain(sample[key], randomize=False)
        return sample


RandHEStainD = RandHEStainDict = RandHEStaind
