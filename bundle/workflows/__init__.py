"""Train, evaluate, predict: each merges a few keys into a configuration and runs it."""

from .evaluating import evaluate
from .inferring import check_prediction, predict
from .trained_run import trained_run
from .training import train

__all__ = ["check_prediction", "evaluate", "predict", "train", "trained_run"]
