from .evaluating import evaluate
from .inferring import check_prediction, predict
from .load_network import load_network
from .trained_run import trained_run
from .training import train

__all__ = ["check_prediction", "evaluate", "load_network", "predict", "train", "trained_run"]
