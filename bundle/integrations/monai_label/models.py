"""The model that is served: a run, or the newest that was fine-tuned from it."""

from __future__ import annotations

import fcntl
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ...config.root import bundle_root
from ...data.manifest import write_manifest
from ...data.panel import load_panel
from ...errors import InputError
from ...files.ownership import EARLIER_RUN, RUN, claim, clear
from ...workflows.training import train

__all__ = ["current_run", "fine_tune"]


def current_run(run: str | Path) -> Path:
    """The newest finished run of `run/tuned`, else `run` itself; delete a tuned run to go back."""
    done = [folder for folder in _tuned(run) if (folder / "models" / "model.pt").is_file()]
    return done[-1] if done else Path(run)


def fine_tune(
    run: str | Path, records: Sequence[Mapping[str, Any]], settings: Mapping[str, Any], trust: bool = False
) -> Path:
    """Go on from the current run's weights, on other slides, into a run folder of its own.

    The weights appear when training ends (there is no validation here), and from then on that run is the current one.

    Args:
        run: the run that is served.
        records: training records with absolute paths.
        settings: keys of `configs/train.json`.
        trust: whether the run's recipe may run code of its own.

    Returns:
        The new run.

    Raises:
        InputError: if slides, units or settings do not suit, or a training of this run is under way.
    """
    with _alone(Path(run) / "tuned"):
        return _fine_tune(run, records, settings, trust)


def _fine_tune(run: str | Path, records: Sequence[Mapping[str, Any]], settings: Mapping[str, Any], trust: bool) -> Path:
    start = current_run(run)
    last = int(start.name) if start != Path(run) else 0
    out = Path(run) / "tuned" / f"{last + 1:04d}"
    claim(out.parent, "tuned", ())
    clear(out, "run", (*RUN, "dataset.json"), {**EARLIER_RUN, "dataset.json": "split_by"})  # a stopped training's
    panel = load_panel(start / "models" / "panel.json")
    manifest = {"training": list(records), "split_by": "section", "transcriptome": panel.transcriptome}
    write_manifest(out, manifest)
    recipe = start / "configs" / "recipe.json"
    if not recipe.is_file():  # of a run of an earlier version
        recipe = recipe.with_name("model.json")
    configs = [recipe, bundle_root() / "configs" / "fine_tune.json"]
    train(out, out, configs, {"start_from": str(start.resolve()), **settings}, trust)
    return out


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Hold the folder's lock, which ends with the process however that ends."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / ".lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise InputError(f"A training in {folder} is under way already; wait until it ends, or stop it.") from error
        yield


def _tuned(run: str | Path) -> list[Path]:
    folder = Path(run) / "tuned"
    return sorted(p for p in folder.iterdir() if p.name.isdigit()) if folder.is_dir() else []
