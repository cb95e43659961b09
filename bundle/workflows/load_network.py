"""Load the network of a trained run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from monai.bundle import ConfigParser

from ..config.merge import merge_config
from ..config.problems import config_errors
from ..config.root import importable_root
from ..config.trust import code_in_current_folder
from ..training.weights import load_weights
from .trained_run import trained_run

__all__ = ["load_network"]


def load_network(run: str | Path, trust: bool = False) -> tuple[Any, dict[str, Any]]:
    """The network of a run with its weights, in evaluation on the CPU, and the configuration that made it.

    Args:
        run: the run folder.
        trust: whether the model may run code of its own.

    Returns:
        The network (see `networks.ExpressionModel`), and `configs/inference.json` merged with the run's model.

    Raises:
        InputError: if the folder holds no finished run, its weights are not those of its network, or it needs `trust`.
    """
    run, model = trained_run(run, trust)
    configs = importable_root() / "configs"
    config = merge_config([configs / "inference.json", model], {"model_dir": str(run / "models")})
    with code_in_current_folder(trust), config_errors():
        network = ConfigParser(config).get_parsed_content("network_def")
    return load_weights(network, run / "models" / "model.pt").eval(), config
