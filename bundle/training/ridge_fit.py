"""Fits a network's second opinion on training slides."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import torch
import torch.distributed as dist

from ..data.normalisation import log1p_cp10k
from ..data.panel import GenePanel
from ..errors import InputError

__all__ = ["fit_ridge"]

logger = logging.getLogger(__name__)

#: That an encoder without weights learns its filters from.
_CROPS = 36


def fit_ridge(
    network: Any,
    slides: Iterable[Mapping[str, Any]],
    inferer: Callable[[Mapping[str, Any], Any], torch.Tensor],
    panel: GenePanel,
    crops: Sequence[Mapping[str, Any]] = (),
) -> None:
    """Solve for the weights of `networks.RidgeBranch` on whole slides, read as evaluation reads them.

    An encoder that learns its filters without labels (`networks.KMeansPatchEncoder`) is shown training crops first.

    Not on training crops: most of their cells see a crop's border, as no cell of a slide does. Every process of a
    distributed training fits, and takes what the first found, so that all agree to the last bit.

    Args:
        network: a `PixNet` with a texture, within a distributed wrapper or not.
        slides: training slides with their units, as `SlideDataset` gives them; read once.
        inferer: a `SlideInferer`.
        panel: the genes to predict.
        crops: training crops, as `CropDataset` gives them, one slide after another; the first 36 are taken, jitter and
            all, so of as many slides at the most.

    Raises:
        InputError: if the slides hold fewer than two units, or too little tissue to learn filters from.
    """
    texture = getattr(network, "module", network).ridge
    encoder = texture.filters.encoder
    if hasattr(encoder, "learn"):
        images = [crops[i]["image"] for i in range(min(len(crops), _CROPS))]  # one slide follows another
        _enough(encoder.learn, images)
    features, targets = [], []
    for slide in slides:
        features.append(inferer(slide, texture.filters))
        units = slide["units"]
        targets.append(torch.from_numpy(log1p_cp10k(units.counts_of(panel.genes), units.total)))
    _enough(texture.fit, torch.cat(features), torch.cat(targets))
    if dist.is_available() and dist.is_initialized():
        for tensor in texture.state_dict().values():
            dist.broadcast(tensor, 0)
    logger.info("texture: ridge regression on %d units of %d slides", sum(map(len, targets)), len(targets))


def _enough(solve: Callable[..., None], *given: Any) -> None:
    """Solve, or say that there is too little to solve with."""
    try:
        solve(*given)
    except ValueError as error:
        if not getattr(error, "too_little", False):
            raise
        raise InputError(
            f"The training slides are too small for network_def#ridge: {error} Add slides, or train without it: "
            "--set network_def#ridge=null"
        ) from error
