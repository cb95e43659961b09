"""Hand-made statistics of colour and stain around each unit."""

from __future__ import annotations

import numpy as np

from transforms.slide import SlideReader

from .slides import Slide, remembered

__all__ = ["SURROUND", "colour_statistics"]

FEATURE_MPP = 1.0
SURROUND = 2.5
PERCENTILES = (10, 25, 50, 75, 90)
# Optical density of haematoxylin, eosin and DAB; Ruifrok & Johnston, "Quantification of histochemical staining", 2001.
STAINS = np.array([[0.65, 0.70, 0.29], [0.07, 0.99, 0.11], [0.27, 0.57, 0.78]])
UNMIX = np.linalg.inv(STAINS / np.linalg.norm(STAINS, axis=1, keepdims=True))


@remembered
def colour_statistics(slide: Slide) -> np.ndarray:
    """Hand-made statistics of each unit's disk and of a disk 2.5 times as wide, (U, F).

    Mean, standard deviation and percentiles of red, green, blue, of the optical densities of haematoxylin, eosin
    and the rest, and of saturation; mean gradient of brightness and haematoxylin.
    """
    reader = SlideReader().open(slide.image, slide.mpp)
    radii_px = np.array([1.0, SURROUND]) * slide.size_um / 2 / FEATURE_MPP
    half = int(np.ceil(radii_px[1])) + 1
    axis = np.arange(-half, half) + 0.5
    distance_px = np.hypot(axis[:, None], axis[None])
    disks = [distance_px < max(radius, 1.0) for radius in radii_px]
    rows = []
    for x_px, y_px in np.rint(slide.centers_um / FEATURE_MPP).astype(int):
        patch = reader.read_region(int(x_px) - half, int(y_px) - half, 2 * half, 2 * half, FEATURE_MPP)
        channels, gradient = _channels(patch)
        rows.append(np.concatenate([_statistics(channels[disk], gradient[disk]) for disk in disks]))
    return np.array(rows)


def _channels(patch: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    rgb = patch.astype(np.float32)
    stains = -np.log10((rgb + 1) / 256) @ UNMIX.astype(np.float32)
    high, low = rgb.max(-1), rgb.min(-1)
    saturation = (high - low) / np.maximum(high, 1)
    gradient = [np.hypot(*np.gradient(image)) for image in (rgb.mean(-1), stains[..., 0])]
    return np.concatenate([rgb, stains, saturation[..., None]], axis=-1), np.stack(gradient, axis=-1)


def _statistics(channels: np.ndarray, gradient: np.ndarray) -> np.ndarray:
    percentiles = np.percentile(channels, PERCENTILES, axis=0).ravel()
    return np.concatenate([channels.mean(0), channels.std(0), percentiles, gradient.mean(0)])
