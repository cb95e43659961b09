"""Open a run folder: check that it is whole, and that nothing in it runs foreign code."""

from __future__ import annotations

from pathlib import Path

from ..config.merge import ConfigFile
from ..config.trust import read_model, refuse_links
from ..errors import InputError
from ..files.weights import check_archive

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
    model, panel = run / "configs" / "model.json", run / "models" / "panel.json"
    if not panel.is_file():
        raise InputError(f"No trained model at {panel.parent}: panel.json is missing. Train one with `pixnet train`.")
    for needed in (model, run / "models" / "model.pt"):
        if not needed.is_file():
            raise InputError(f"{run} is not a finished training run: {needed.relative_to(run)} is missing.")
    check_archive(run / "models" / "model.pt")
    return run, ConfigFile(model, read_model(model, trust))
