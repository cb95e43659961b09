"""Fit a network's ridge branch on the training slides."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import torch
import torch.distributed as dist
from ignite.engine import Engine, Events

from ..data.crop_dataset import CropDataset
from ..data.normalisation import log1p_cp10k
from ..data.panel import GenePanel
from ..errors import InputError, is_input_error

__all__ = ["RidgeFit", "fit_ridge"]

logger = logging.getLogger(__name__)

#: Training crops on which an encoder without weights chooses its filters.
_CROPS = 36


class RidgeFit:
    """Ignite handler: fit the network's ridge branch before training starts.

    It does nothing if the network has no ridge branch, or if the branch is fitted already, as after fine-tuning's
    `bundle.load_weights`.

    Args:
        network: a `PixNet`, within a distributed wrapper or not.
        dataset: the training crops, and the slides that they come from.
        inferer: a `SlideInferer`.
        panel: the genes to predict.
    """

    def __init__(
        self,
        network: Any,
        dataset: CropDataset,
        inferer: Callable[[Mapping[str, Any], Any], torch.Tensor],
        panel: GenePanel,
    ) -> None:
        self.network = getattr(network, "module", network)
        self.dataset = dataset
        self.inferer = inferer
        self.panel = panel

    def attach(self, engine: Engine) -> None:
        """Fit when training starts."""
        engine.add_event_handler(Events.STARTED, self)

    def __call__(self, engine: Engine) -> None:
        """Fit the branch, see `fit_ridge`."""
        ridge = getattr(self.network, "ridge", None)
        if ridge is not None and not ridge.is_fitted:
            crops: Any = self.dataset
            fit_ridge(self.network, crops.whole_slides(), self.inferer, self.panel, crops)


def fit_ridge(
    network: Any,
    slides: Iterable[Mapping[str, Any]],
    inferer: Callable[[Mapping[str, Any], Any], torch.Tensor],
    panel: GenePanel,
    crops: Sequence[Mapping[str, Any]] = (),
) -> None:
    """Solve for the weights of a `networks.RidgeBranch` on whole slides, which it reads as evaluation does.

    Training crops would not do: most of their map pixels see the crop's border, which no map pixel of a slide does. An
    encoder that learns its filters without labels (`networks.KMeansPatchEncoder`) learns them from crops first. In a
    distributed training every process fits and then takes the result of the first, so that all agree to the last bit.

    Args:
        network: a `PixNet` with a ridge branch, within a distributed wrapper or not.
        slides: training slides with their units, as `SlideDataset` gives them. Each is read once.
        inferer: a `SlideInferer`.
        panel: the genes to predict.
        crops: training crops, as `CropDataset` gives them, one slide after another. Only the first 36 are read, with
            their augmentations.

    Raises:
        InputError: if the slides hold fewer than two units, or too little tissue to learn filters from.
    """
    ridge = getattr(network, "module", network).ridge
    encoder = ridge.filters.encoder
    if hasattr(encoder, "learn"):
        images = [crops[i]["image"] for i in range(min(len(crops), _CROPS))]
        _enough(encoder.learn, images)
    features, targets = [], []
    for slide in slides:
        features.append(inferer(slide, ridge.filters))
        units = slide["units"]
        targets.append(torch.from_numpy(log1p_cp10k(units.counts_of(panel.genes), units.total)))
    _enough(ridge.fit, torch.cat(features), torch.cat(targets))
    if dist.is_available() and dist.is_initialized():
        for tensor in ridge.state_dict().values():
            dist.broadcast(tensor, 0)
    logger.info("Fitted the ridge branch on %d units of %d slides.", sum(map(len, targets)), len(targets))


def _enough(solve: Callable[..., None], *given: Any) -> None:
    """Call `solve`, and turn its complaint about too little data into a sentence."""
    try:
        solve(*given)
    except ValueError as error:
        if not is_input_error(error):
            raise
        raise InputError(
            f"The training slides are too small for network_def#ridge: {error} Add slides, or train without it: "
            "--set network_def#ridge=null"
        ) from error
