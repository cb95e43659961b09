"""Track losses and scores in MLflow."""

from __future__ import annotations

from typing import Any

from monai.handlers import MLFlowHandler

__all__ = ["MLFlowTracking"]


class MLFlowTracking(MLFlowHandler):
    """MONAI's `MLFlowHandler`, with metric names that MLflow accepts: `PCC@M` becomes `PCC_at_M`.

    Takes the same arguments. See docs/integrations/mlflow.md for the handlers of training and validation.
    """

    def _log_metrics(self, metrics: dict[str, Any], step: int | None = None) -> None:
        super()._log_metrics({name.replace("@", "_at_"): value for name, value in metrics.items()}, step)
