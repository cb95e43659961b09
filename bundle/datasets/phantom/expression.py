"""What a cell expresses: from its kind, its visible state, and a part that no pixel shows."""

from __future__ import annotations

from typing import Literal

import numpy as np

from .anatomy import ADIPOCYTE, EPITHELIUM, FIBROBLAST, LYMPHOCYTE, TUMOUR, Anatomy, Cells
from .noise import sigmoid

__all__ = ["Expression", "Mixture"]

Mixture = Literal["programs", "free"]

_REFERENCE_UM = 1200.0
_AMBIENT_SHARE = 0.03
_ABUNDANCE_SIGMA = 1.0
_SLIDE_SIGMA = 0.25
_DRAWS = 8
_STATE_GAIN = 1.3  # how far apart the `free` genes' states lie
# Strength of the invisible part, set so that 30 to 50 % of the variance is invisible at 100 µm.
_HIDDEN_PROGRAMS = 0.3
_HIDDEN_FREE = 1.15
# RNA per cell beside a tumour cell of 4.5 µm radius.
_CONTENT = {EPITHELIUM: 0.9, LYMPHOCYTE: 0.35, FIBROBLAST: 1.6, ADIPOCYTE: 1.5}
# The visible programs by compartment (see `_programs`). Most genes pair a state of the tumour with one of the stroma,
# so that the two compartments' shares, which colour gives away, say little about them.
_TUMOUR_STATES, _STROMA_STATES, _BARE_KINDS = (0, 1, 2, 3, 4, 5), (8, 9, 10), (6, 7, 11)
_VISIBLE = 12
_PAIRED = 0.92


class Expression:
    """Genes of a phantom: the same on every slide, but for one factor per slide and gene.

    Every tenth gene (at least one) is ambient: a constant density everywhere, glass included. The others are
    expressed by cells. Abundances are log-normal (sigma 1).

    Args:
        genes: how many, at least 2.
        seed: of the phantom, not of a slide.
        mixture: `programs`: a cell's rates are non-negative sums of 18 programs; `free`: each gene is a nonlinear
            function of its own of the cell's state, so that no few programs span them.
        umi_per_um2: counts per square micrometre of average tissue.
    """

    def __init__(self, genes: int, seed: int, mixture: Mixture, umi_per_um2: float) -> None:
        rng = np.random.default_rng([seed, 100])
        self.mixture = mixture
        n_ambient = max(1, genes // 10)
        n = genes - n_ambient
        self.names = [f"GENE{g + 1:03d}" for g in range(n)] + [f"AMBIENT{g + 1:02d}" for g in range(n_ambient)]
        mean = np.exp(rng.normal(0, _ABUNDANCE_SIGMA, genes))
        mean[:n] *= (1 - _AMBIENT_SHARE) * umi_per_um2 / mean[:n].sum()
        mean[n:] *= _AMBIENT_SHARE * umi_per_um2 / mean[n:].sum()
        self.ambient_per_um2 = np.r_[np.zeros(n), mean[n:]]
        self._loadings = self._draw_loadings(rng, n)
        self._weights = rng.normal(size=(3, 11, n)), rng.normal(size=(2, 5, n)), rng.uniform(0, 2 * np.pi, (2, n))
        self._mean = np.ones(n)
        # One reference tissue sets every gene's mean, so that slides differ in content and not only in layout.
        reference = Anatomy(seed + 7919, _REFERENCE_UM, 0.0).cells(0, 0, _REFERENCE_UM, _REFERENCE_UM)
        self._mean = mean[:n] / np.maximum(self.of_cells(reference)[:, :n].sum(0) / _REFERENCE_UM**2, 1e-12)

    def slide_factors(self, slide_seed: int) -> np.ndarray:
        """Log-normal factors of one slide, (genes,)."""
        rng = np.random.default_rng([slide_seed, 101])
        return np.exp(rng.normal(0, _SLIDE_SIGMA, len(self.names)))

    def of_cells(self, cells: Cells) -> np.ndarray:
        """Expected counts per cell, (cells, genes); ambient genes are 0 here."""
        rates = _programs(cells) @ self._loadings if self.mixture == "programs" else self._free(cells)
        rates = rates * (_content(cells)[:, None] * self._mean)
        return np.pad(rates, ((0, 0), (0, len(self.names) - rates.shape[1])))

    def of_visible(self, cells: Cells) -> np.ndarray:
        """The same with the invisible part averaged over 8 draws of what it might have been."""
        rng = np.random.default_rng(0)
        total = np.zeros((len(cells), len(self.names)))
        for _ in range(_DRAWS):
            hidden = rng.normal(size=cells.hidden.shape)
            hidden[:, -1] = hidden[:, -1] > 1.0364  # 15 %
            total += self.of_cells(Cells(**{**vars(cells), "hidden": hidden}))
        return total / _DRAWS

    @staticmethod
    def _draw_loadings(rng: np.random.Generator, n: int) -> np.ndarray:
        """Non-negative loadings (18 programs, n genes): two visible, everyday, and two hidden ones."""
        loadings = np.zeros((_VISIBLE + 6, n))
        for g in range(n):
            if rng.random() < _PAIRED:
                loadings[rng.choice(_TUMOUR_STATES), g] = 1.0
                loadings[rng.choice(_STROMA_STATES), g] = rng.uniform(0.7, 1.3)
            else:
                loadings[rng.choice(_BARE_KINDS), g] = 1.0
                loadings[rng.choice(_TUMOUR_STATES + _STROMA_STATES), g] = rng.uniform(0.1, 0.4)
            loadings[_VISIBLE, g] = rng.uniform(0.02, 0.1)
            hidden = _VISIBLE + 1 + rng.permutation(5)[:2]
            loadings[hidden, g] = _HIDDEN_PROGRAMS * rng.uniform(0.5, 1.0, 2)
        return loadings

    def _free(self, cells: Cells) -> np.ndarray:
        """exp(sine + product + hidden) of random projections of the state, each gene its own."""
        seen, unseen = _state(cells)
        visible, hidden, phase = self._weights
        a, b, c = (seen @ w / np.sqrt(3) for w in visible)
        h, k = (unseen @ w / np.sqrt(5) for w in hidden)
        return np.exp(
            _STATE_GAIN * (np.sin(1.5 * a + phase[0]) + 0.6 * np.tanh(b * c))
            + _HIDDEN_FREE * (np.sin(h + phase[1]) + 0.5 * np.tanh(k))
        )


def _content(cells: Cells) -> np.ndarray:
    """RNA per cell; proportional to the nuclear area in tumour, so that its density is blind to nuclear size."""
    content = (cells.radius_um / 4.5) ** 2
    for kind, value in _CONTENT.items():
        content[cells.kind == kind] = value
    return content


def _near(cells: Cells) -> np.ndarray:
    """1 at the tumour's border, falling over 40 µm outside it."""
    return np.exp(np.minimum(cells.depth_um, 0) / 40)


def _hypoxia(cells: Cells) -> np.ndarray:
    """0 at the tumour's border to 1 in its core, half way at 60 µm."""
    return sigmoid((cells.depth_um - 60) / 15)


def _programs(cells: Cells) -> np.ndarray:
    """Non-negative activities (cells, 18)."""
    tumour, gland, immune, fibro, fat = (
        (cells.kind == k).astype(float) for k in (TUMOUR, EPITHELIUM, LYMPHOCYTE, FIBROBLAST, ADIPOCYTE)
    )
    hypoxia, near = _hypoxia(cells), _near(cells)
    fields, cycling = cells.hidden[:, :-1], cells.hidden[:, -1]
    visible = [
        tumour * cells.grade,
        tumour * (1 - cells.grade),
        tumour * cells.spindle,
        tumour * (1 - cells.spindle),
        tumour * hypoxia,
        tumour * (1 - hypoxia),
        gland,
        immune * 3,
        fibro * cells.wavy,
        fibro * (1 - cells.wavy),
        fibro * near,
        fat,
    ]
    hidden = [np.exp(1.1 * f - 0.6) for f in fields.T]
    return np.stack([*visible, np.ones(len(cells)), *hidden, cycling / 0.15], axis=1)


def _state(cells: Cells) -> tuple[np.ndarray, np.ndarray]:
    """Visible (cells, 11) and invisible (cells, 5) state, of the order of one."""
    kinds = [(cells.kind == k).astype(float) for k in (TUMOUR, EPITHELIUM, LYMPHOCYTE, FIBROBLAST, ADIPOCYTE)]
    tumour, fibro = kinds[0], kinds[3]
    seen = [
        *(0.7 * k for k in kinds),
        2.5 * tumour * (cells.grade - 0.5),
        2.5 * tumour * (cells.spindle - 0.5),
        2.5 * tumour * (_hypoxia(cells) - 0.5),
        2.5 * fibro * (cells.wavy - 0.5),
        2.5 * fibro * (_near(cells) - 0.5),
        cells.radius_um / 4 - 1,
    ]
    return np.stack(seen, axis=1), np.c_[cells.hidden[:, :-1], 2 * cells.hidden[:, -1]]
