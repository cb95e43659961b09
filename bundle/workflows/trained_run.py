"""Open a run folder: check that it is whole, and that nothing in it runs foreign code."""

from __future__ import annotations

from pathlib import Path

from ..config.trust import read_model, refuse_links
from ..data.panel import load_panel
from ..errors import InputError
from ..files.weights import check_archive

__all__ = ["trained_run"]


def trained_run(run: str | Path, trust: bool = False) -> tuple[Path, Path]:
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
    model = run / "configs" / "model.json"
    load_panel(run / "models" / "panel.json")
    for needed in (model, run / "models" / "model.pt"):
        if not needed.is_file():
            raise InputError(f"{run} is not a finished training run: {needed.relative_to(run)} is missing.")
    check_archive(run / "models" / "model.pt")
    read_model(model, trust)
    return run, model
