"""Score a trained model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ..config.literals import unescape
from ..config.merge import merge_config
from ..config.root import bundle_root
from ..config.run import run_config
from ..data.manifest import read_split
from ..errors import InputError
from ..files.lock import output_lock
from ..files.naming import check_name
from ..files.ownership import claim_run
from ..files.reading import read_json
from ..files.schemas import TRAINED
from ..speed.memory import keep_freed_memory
from .trained_run import trained_run

__all__ = ["evaluate"]


def evaluate(
    run: str | Path,
    dataset: str | Path | None = None,
    split: str = "test",
    scales_um: Sequence[float] | None = None,
    name: str | None = None,
    size_um: float | None = None,
    settings: Mapping[str, Any] | None = None,
    trust: bool = False,
) -> Path:
    """Score a trained model; returns the JSON written.

    Args:
        run: the run folder.
        dataset: the data set; the one trained on by default.
        split: which of its splits.
        scales_um: sides of the grid squares that units are summed in.
        name: of the JSON, the split's by default.
        size_um: which of the slides' unit sizes; by default, on the training data set, the coarsest that training
            used, which may be summed from bins, and on others the slides' coarsest.
        settings: further keys. Text is data, unless it is `Code`.
        trust: whether the model may run code of its own.

    Raises:
        InputError: if there is nothing to score, or training's own `validation.json` would be replaced by figures of
            something else.
    """
    run, model = trained_run(run, trust)
    trained_with = run / "configs" / "train.json"
    trained = read_json(trained_with, schema=TRAINED) if trained_with.is_file() else {}
    trained_data = Path(str(unescape(trained["dataset_dir"]))).resolve() if trained else None
    sizes, trained_um = trained.get("unit_sizes_um"), trained.get("score_size_um")
    if not isinstance(trained_um, (int, float)):  # an expression of the sizes
        trained_um = max(sizes) if isinstance(sizes, list) and sizes else None
    if dataset is None:
        dataset = trained_data
    if dataset is None:
        raise InputError(f"{run} does not say which data set it was trained on; give one with --dataset.")
    if size_um is None and Path(dataset).resolve() == trained_data:
        size_um = trained_um
    overrides: dict[str, Any] = {
        "dataset_dir": str(Path(dataset).resolve()),
        "output_dir": str(run),
        "split": split,
        **({"scales_um": list(scales_um)} if scales_um is not None else {}),
        **({"name": name} if name is not None else {}),
        **({"score_size_um": size_um} if size_um is not None else {}),
        **(settings or {}),
    }
    merge_config([bundle_root() / "configs" / "evaluate.json", model], overrides)
    written = overrides["split"] if overrides.get("name") is None else check_name(str(overrides["name"]), "--name")
    scored = (Path(overrides["dataset_dir"]), overrides["split"], overrides.get("score_size_um"))
    table = run / "evaluation" / "validation_genes.csv"
    if written == "validation" and table.is_file() and scored != (trained_data, "validation", trained_um):
        raise InputError(
            f"{table}, which training wrote, decides which genes are predicted. Give scores of another data set, split "
            "or size of units another --name."
        )
    if not read_split(overrides["dataset_dir"], overrides["split"]):
        raise InputError(f'{overrides["dataset_dir"]} has no slide to score in its split "{overrides["split"]}".')
    keep_freed_memory()
    claim_run(run)
    with output_lock(run / "evaluation" / f"{written}.json"):
        run_config("evaluating", [bundle_root() / "configs" / "evaluate.json", model], overrides, trust)
    return run / "evaluation" / f"{written}.json"
