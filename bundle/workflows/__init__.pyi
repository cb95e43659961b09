from .evaluating import evaluate
from .inferring import check_prediction, predict
from .trained_run import trained_run
from .training import train

__all__ = ["check_prediction", "evaluate", "predict", "train", "trained_run"]
