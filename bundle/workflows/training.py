"""Train a model into a run folder."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ..config.config_file import ConfigFile, read_config
from ..config.defaults import with_defaults
from ..config.earlier import GONE, REWIRED, is_earlier, today, today_key
from ..config.merge import merge_config
from ..config.root import bundle_root
from ..config.run import run_config
from ..config.trust import check_model, check_override, is_of_a_run, refuse_links
from ..errors import InputError
from ..files.lock import output_lock
from ..files.ownership import claimed_run
from ..files.reading import read_json
from ..files.schemas import TRAINED

__all__ = ["train"]

#: Keys that may differ when a run resumes: where and how long it runs, and how it started.
_FREE_ON_RESUME = {
    *("max_epochs", "num_workers", "device", "is_main", "output_dir", "dataset_dir", "bundle_root"),
    *("head_start", "run", "training"),
}


def train(
    dataset: str | Path,
    run: str | Path,
    configs: Sequence[str | Path] = (),
    settings: Mapping[str, Any] | None = None,
    trust: bool = False,
) -> None:
    """Train on a data set into a run folder; a run that was stopped goes on after its last whole epoch.

    Args:
        dataset: the data set.
        run: the run folder.
        configs: configuration files, which can hold code. Those of a run folder need `trust` for that, and all that are
            not PixNet's where training goes on from another run (`start_from`).
        settings: further keys. Text is data, unless it is `Code`.
        trust: whether a run's configuration may run code of its own.

    Raises:
        InputError: if the run folder holds a run with other settings, or a configuration needs `trust`.
    """
    read = [read_config(file) for file in configs]  # once: what is checked here is what runs
    starts = [start for content in (*(file.content for file in read), settings or {}) for start in _starts(content)]
    for file in read:
        if file.path.resolve().parent == bundle_root() / "configs":
            continue
        if is_of_a_run(file.path):
            check_model(file, trust)
        elif starts:  # it may be a stranger's recipe, wherever it lies
            check_override(file, trust)
    if starts and isinstance(starts[-1], (str, Path)):
        refuse_links(starts[-1])
    run = Path(run).resolve()
    refuse_links(run)
    if os.environ.get("RANK", "0") != "0":  # of several processes the first writes
        _train(dataset, run, read, settings, trust)
        return
    with claimed_run(run), output_lock(run / "run", what=str(run), may_hold_it=True):
        _train(dataset, run, read, settings, trust)


def _starts(content: Mapping[str, Any]) -> list[Any]:
    """What a configuration says of the run that training goes on from."""
    return [value for key, value in content.items() if key.lstrip("+") == "start_from"]  # `+` merges into a key


def _train(
    dataset: str | Path, run: Path, configs: Sequence[ConfigFile], settings: Mapping[str, Any] | None, trust: bool
) -> None:
    files: list[str | Path | ConfigFile] = [bundle_root() / "configs" / "train.json", *configs]
    overrides = {"dataset_dir": str(Path(dataset).resolve()), "output_dir": str(run), **(settings or {})}
    earlier = run / "configs" / "train.json"
    if earlier.is_file() and (run / "checkpoints" / "last.pt").is_file():
        changed = _changed(read_json(earlier, schema=TRAINED), merge_config(files, overrides))
        if changed:
            raise InputError(
                f"{run} holds a run with other settings ({', '.join(changed)}). Give the same ones to resume it, or "
                "another folder to start anew."
            )
    run_config("training", files, overrides, trust)


def _changed(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """The keys in which a run's merged configuration differs from another, apart from those that may."""
    free = _FREE_ON_RESUME | (REWIRED if is_earlier(before) else set())
    before = {today_key(key): value for key, value in today(dict(before)).items() if key not in GONE}
    return sorted(k for k in {*before, *now} - free if _whole(before.get(k)) != _whole(now.get(k)))


def _whole(content: Any) -> Any:
    """A part of a configuration with the defaults of its classes written out."""
    if isinstance(content, list):
        return [_whole(item) for item in content]
    if not isinstance(content, dict):
        return content
    return {key: _whole(value) for key, value in with_defaults(content).items()}
