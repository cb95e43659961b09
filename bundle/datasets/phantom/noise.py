"""Randomness as a function of position: hashed lattices and smooth fields. Any region can be drawn alone."""

from __future__ import annotations

import numpy as np

__all__ = ["Field", "sigmoid", "uniform"]

_WAVES = 24


def uniform(seed: int, channel: int, i: np.ndarray, j: np.ndarray) -> np.ndarray:
    """Uniform [0, 1) numbers that belong to lattice cells (i, j): a SplitMix64 hash, so no order of drawing."""
    with np.errstate(over="ignore"):
        z = np.asarray(seed & 0xFFFFFFFFFFFFFFFF, np.uint64) * np.uint64(0xD1342543DE82EF95) + np.uint64(channel)
        for key in (i, j):
            z = (z ^ np.asarray(key).astype(np.int64).view(np.uint64)) + np.uint64(0x9E3779B97F4A7C15)
            z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
            z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
            z = z ^ (z >> np.uint64(31))
    return np.asarray((z >> np.uint64(11)) * 2.0**-53)


def sigmoid(x: np.ndarray) -> np.ndarray:
    """The logistic function, safe for large |x|."""
    return 0.5 * (1 + np.tanh(0.5 * x))


class Field:
    """A smooth random function of the plane: mean 0, variance 1, Gaussian covariance of length `length_um`.

    A sum of 24 plane waves with normal wave vectors (random Fourier features), so that it has no grid and no edge.
    """

    def __init__(self, rng: np.random.Generator, length_um: float) -> None:
        self.length_um = length_um
        # One direction per wave in even steps keeps 24 waves isotropic.
        angle = np.pi * (np.arange(_WAVES) + rng.random(_WAVES)) / _WAVES
        wave_number = np.sqrt(-2 * np.log(1 - (np.arange(_WAVES) + rng.random(_WAVES)) / _WAVES))
        wave_number = np.minimum(rng.permutation(wave_number), 3.0) / length_um
        self._kx, self._ky = wave_number * np.cos(angle), wave_number * np.sin(angle)
        self._phase = rng.uniform(0, 2 * np.pi, _WAVES)

    def __call__(self, x_um: np.ndarray, y_um: np.ndarray) -> np.ndarray:
        """Values at points."""
        value = np.zeros(np.broadcast_shapes(np.shape(x_um), np.shape(y_um)))
        for kx, ky, phase in zip(self._kx, self._ky, self._phase, strict=True):
            value += np.cos(kx * x_um + ky * y_um + phase)
        return value * np.sqrt(2 / _WAVES)

    def slope(self, x_um: np.ndarray, y_um: np.ndarray) -> np.ndarray:
        """Length of the gradient at points, per micrometre."""
        shape = np.broadcast_shapes(np.shape(x_um), np.shape(y_um))
        gx, gy = np.zeros(shape), np.zeros(shape)
        for kx, ky, phase in zip(self._kx, self._ky, self._phase, strict=True):
            s = np.sin(kx * x_um + ky * y_um + phase)
            gx += kx * s
            gy += ky * s
        return np.hypot(gx, gy) * np.sqrt(2 / _WAVES)
