"""What the trained half of a network predicts alone: the same weights without the ridge branch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from bundle.inference import SlideInferer

__all__ = ["HeadInferer"]


class HeadInferer(SlideInferer):
    """`SlideInferer` of a `PixNet` with a ridge branch, without that branch: it pools the head's channels alone."""

    def __call__(  # type: ignore[override]
        self, inputs: Mapping[str, Any], network: Any, *args: Any, **kwargs: Any
    ) -> torch.Tensor:
        """See `SlideInferer`; (U, channels of the head)."""
        pooled = super().__call__(inputs, network, *args, **kwargs)
        return pooled[:, : getattr(network, "module", network).head.channels]
