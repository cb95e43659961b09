"""Open a run folder: check that it is whole, and that nothing in it runs foreign code."""

from __future__ import annotations

from pathlib import Path

from ..config.config_file import ConfigFile
from ..config.trust import read_model, refuse_links
from ..errors import InputError

__all__ = ["trained_run"]


def trained_run(run: str | Path, trust: bool = False) -> tuple[Path, ConfigFile]:
    """A run's folder and the configuration of its model, which is checked before anything of it runs.

    Args:
        run: the run folder.
        trust: whether the model may run code of its own.

    Raises:
        InputError: if the run was not finished, its weights are damaged, it would run foreign code, or links in it
            lead outside.
    """
    run = Path(run).resolve()
    refuse_links(run)
    panel, model, weights = (run / name for name in ("models/panel.json", "configs/model.json", "models/model.pt"))
    for needed in (panel, model, weights):
        if not needed.is_file():
            raise InputError(
                f"{run} is not a finished training run: {needed.relative_to(run)} is missing. Train one with "
                "`pixnet train`."
            )
    content = read_model(model, trust)
    from ..training.weights import check_archive  # slow to import

    check_archive(weights)
    return run, ConfigFile(model, content)
