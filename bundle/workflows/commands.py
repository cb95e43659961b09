"""What the command line does, as functions: each merges a few keys into a configuration and runs it."""

from __future__ import annotations

import json
import logging
import math
import os
import sys
import warnings
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import torch
from monai.apps.utils import get_logger
from monai.bundle import ConfigParser
from monai.bundle.utils import merge_kv

from ..config.literals import Code, as_code, quoted, unquoted
from ..config.problems import configuration_refused
from ..config.trust import check_override, is_of_a_run, read_model, refuse_links
from ..data.manifest import read_split
from ..data.panel import load_panel
from ..errors import InputError, did_you_mean, user_message
from ..files.atomic import alone_at, make_folder
from ..files.naming import check_name
from ..files.ownership import check_output, claim_run, claimed_run
from ..files.reading import read_json
from ..files.schemas import MODEL, TRAINED, check
from ..files.weights import check_archive
from ..inference.lattices import file_suffixes, unit_grids
from ..inference.memory import keep_freed_memory
from ..inference.uncertainty import with_standard_error
from ..training.handlers import as_written

__all__ = [
    "bundle_root",
    "check_prediction",
    "evaluate",
    "merge_config",
    "predict",
    "run_config",
    "train",
    "trained_run",
]

logger = logging.getLogger(__name__)

#: Keys that may differ when a run goes on where it was: where it runs, how its checkpoint is read, and how it started.
_FREE_ON_RESUME = {
    *("max_epochs", "num_workers", "device", "is_main", "output_dir", "dataset_dir", "bundle_root"),
    *("checkpoint_handlers", "head_start", "texture_start"),
}
#: Keys that an override may add.
_MAY_ADD = {"finalize", "start_from"}
_NIFTI = (".nii", ".nii.gz")
#: By the last part of a key that has no value in the configurations: one that it might have.
_MIGHT_BE: dict[str, Any] = {
    "bin_um": 16.0,
    "genes": ["ERBB2"],
    "max_units": 64,
    "pitch_um": 100.0,
    "postprocessing": {},
    "region_px": [0, 0, 2000, 2000],
    "sampler": {},
    "score_size_um": 100.0,
    "slide_mpp": 0.5,
    "spot_um": 55.0,
    "tile_px": 1024,
    "unit_sizes_um": [100.0],
}
#: By the last part of a key: what must be a whole number, and what must be above 0.
_WHOLE = {
    "batch_size",
    "crop_px",
    "crops_per_slide",
    "max_epochs",
    "max_units",
    "n_programs",
    "tile_px",
    "val_interval",
}
_POSITIVE = {*_WHOLE, "learning_rate", "mpp"}


def bundle_root() -> Path:
    """The folder that holds `configs`, `bundle`, `networks` and `transforms`."""
    return Path(__file__).resolve().parents[2]


def run_config(run_id: str, files: Sequence[str | Path], overrides: Mapping[str, Any]) -> None:
    """Run a configuration with `monai.bundle.run`.

    Args:
        run_id: `training`, `evaluating` or `inferring`.
        files: configuration files, later ones merged over earlier ones.
        overrides: keys such as `train#trainer#max_epochs` and their values. Text is data, unless it is `Code`.

    Raises:
        InputError: if a file or a key does not exist, a value does not suit its key, or the run refuses its input.
    """
    import monai.bundle

    root = str(bundle_root())
    if root not in sys.path:  # the configurations name `networks.PixNet`, not `pixnet.networks.PixNet`
        sys.path.insert(0, root)
    config = merge_config(files, {"bundle_root": root, **overrides})
    get_logger("monai.handlers.StatsHandler").addFilter(_without_traceback)
    told = [get_logger(f"monai.bundle.{module}") for module in ("scripts", "workflows")]
    try:
        for monai_logger in told:  # its arguments
            monai_logger.addFilter(_problems_alone)
        with configuration_refused(_own_parts(files, overrides)), warnings.catch_warnings():
            warnings.filterwarnings("ignore", "parsing config_file", UserWarning)  # the command line's help says it
            monai.bundle.run(
                run_id=run_id,
                config_file=str(files[0]),
                meta_file=f"{root}/configs/metadata.json",
                logging_file=f"{root}/configs/logging.conf",
                # All that was merged and checked, so that no other file is read. MONAI leaves out what is None, and
                # the first file's own would stand.
                **{key: "$None" if value is None else value for key, value in config.items()},
            )
    finally:
        for monai_logger in told:
            monai_logger.removeFilter(_problems_alone)


def _own_parts(files: Sequence[str | Path], overrides: Mapping[str, Any]) -> list[str]:
    """The keys at which the user has put code or a component, by a file that is no run's and not PixNet's, or --set."""
    given = dict(overrides)
    for file in files[1:]:
        if Path(file).resolve().parent != bundle_root() / "configs" and not is_of_a_run(file):
            given |= {key: as_code(value) for key, value in read_json(file).items()}
    return [key for key, value in given.items() if isinstance(value, (Code, dict))]


def _problems_alone(record: logging.LogRecord) -> bool:
    """Log filter: leave out MONAI's account of how it was called."""
    return record.levelno >= logging.ERROR


def _without_traceback(record: logging.LogRecord) -> bool:
    """Log filter: what is told to the user in a sentence needs no traceback before it."""
    if record.exc_info and record.exc_info[1] is not None and user_message(record.exc_info[1]) is not None:
        record.exc_info = None
    return True


def merge_config(files: Sequence[str | Path], overrides: Mapping[str, Any]) -> dict[str, Any]:
    """The merged configuration, refusing keys that the base file does not have.

    Args:
        files: configuration files, which may hold code.
        overrides: keys and values. Text is data, unless it is `Code`.

    Raises:
        InputError: if a file or a key does not exist, or a value does not suit its key.
    """
    parser = ConfigParser()
    for number, file in enumerate(files):
        if not Path(file).is_file():
            raise InputError(f"No such configuration: {file}. PixNet's own are in {bundle_root() / 'configs'}.")
        content = read_json(file)
        if not isinstance(content, dict):
            raise InputError(f'{file} is not a configuration: it must hold keys and values, {{"max_epochs": 20}}.')
        if number == 0:
            parser.set(content)
            continue
        for key, value in content.items():
            _set(parser, key, as_code(value), str(file))
    for key, value in overrides.items():
        _set(parser, key, value, "--set")
    config = as_written({k: v for k, v in parser.get().items() if k != "_meta_"})
    check(config, MODEL, "The configuration")
    return config


def _set(parser: ConfigParser, key: str, value: Any, source: str) -> None:
    plain = key.replace("::", "#").lstrip("+")
    if not plain or (plain not in parser and plain not in _MAY_ADD):
        parent = plain.rpartition("#")[0]
        beside = parser.get(parent) if parent and parent in parser else parser.get()
        known = sorted(k for k in beside if not k.startswith("_")) if isinstance(beside, dict) else []
        where = f" in {parent}" if parent and parent in parser else ""
        hint = did_you_mean(plain.rpartition("#")[2], known) or f" Known{where}: {', '.join(known)}."
        raise InputError(f'{source}: there is no key "{plain}".{hint}')
    if value is not None or parser.get(plain) is not None:
        _check_value(plain, value, _usual(parser, plain), source)
    merge_kv(parser, f"+{plain}" if key.startswith("+") and plain in parser else plain, quoted(value))


def _usual(parser: ConfigParser, key: str) -> Any:
    """What the configuration has at a key, or where that refers to."""
    usual, seen = parser.get(key), {key}
    while isinstance(usual, str) and usual.startswith("@") and (key := usual[1:].replace("::", "#")) not in seen:
        seen.add(key)
        usual = parser.get(key)
    return _MIGHT_BE.get(key.rpartition("#")[2]) if usual is None else usual


def _check_value(key: str, value: Any, usual: Any, source: str) -> None:
    """Refuse what is not of the kind that the configuration has there, or cannot be."""
    if isinstance(value, dict):
        for name, item in value.items():
            _check_value(f"{key}#{name}", as_code(item), None, source)
    if key.endswith("#_target_") and not (isinstance(value, str) and value):
        raise InputError(f'{source}: "{key}" is {json.dumps(value)}; it must be the name of a class or function.')
    if isinstance(value, Code):
        return
    if usual is None:
        usual = _MIGHT_BE.get(key.rpartition("#")[2])
        if value is None:
            return
    if key == "bin_um" and isinstance(value, (list, tuple)):
        for size in value:
            _check_value(key, size, usual, source)
        return
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if isinstance(usual, (int, float)) and not isinstance(usual, bool) and not is_number:
        raise InputError(f'{source}: "{key}" is a number such as {usual}, not {json.dumps(value)}.')
    if isinstance(usual, list) and not isinstance(value, (list, tuple)):
        raise InputError(f'{source}: "{key}" is a list such as {json.dumps(usual)}, not {json.dumps(value)}.')
    if isinstance(usual, bool) and not isinstance(value, bool):
        raise InputError(f'{source}: "{key}" is true or false, not {json.dumps(value)}.')
    is_text = isinstance(value, (str, os.PathLike))
    if isinstance(usual, str) and not usual.startswith(("$", "@", "%")) and not is_text:
        raise InputError(
            f'{source}: "{key}" is text such as {json.dumps(usual)}, not {json.dumps(value)}. Quote a text that looks '
            f"like something else: '{key}=\"2024\"'."
        )
    if isinstance(usual, dict) and value is not None and not isinstance(value, dict):
        raise InputError(f'{source}: "{key}" holds keys and values of its own, not {json.dumps(value)}.')
    last = key.rpartition("#")[2]
    if is_number and not math.isfinite(value):
        raise InputError(f'{source}: "{key}" is {value}; it must be finite.')
    if last in _POSITIVE and is_number and not value > 0:
        raise InputError(f'{source}: "{key}" is {value}; it must be above 0.')
    if last in _WHOLE and is_number and value != int(value):
        raise InputError(f'{source}: "{key}" is {value}; it must be a whole number.')
    if key == "device" and isinstance(value, str):
        try:
            torch.empty(0, device=value)
        except Exception as error:
            reason = str(error).splitlines()[0].rstrip(".")
            raise InputError(f'{source}: there is no device "{value}" here ({reason}). Use cpu.') from error


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
    there = [file for file in configs if Path(file).is_file()]  # `merge_config` refuses others
    goes_on = any(_has(content, "start_from") for content in (settings, *map(read_json, there)))
    others = [file for file in there if Path(file).resolve().parent != bundle_root() / "configs"]
    for file in others:
        if is_of_a_run(file):
            read_model(file, trust)
        elif goes_on:  # it may be a stranger's recipe, wherever it lies
            check_override(file, trust)
    start = (settings or {}).get("start_from")
    if isinstance(start, (str, Path)):
        refuse_links(start)
    run = Path(run).resolve()
    refuse_links(run)
    if os.environ.get("RANK", "0") != "0":  # of several processes the first writes
        _train(dataset, run, configs, settings)
        return
    with claimed_run(run), alone_at(run / "training", what=str(run)):
        _train(dataset, run, configs, settings)


def _has(content: Any, key: str) -> bool:
    return isinstance(content, Mapping) and any(str(name).lstrip("+") == key for name in content)


def _train(dataset: str | Path, run: Path, configs: Sequence[str | Path], settings: Mapping[str, Any] | None) -> None:
    files = [bundle_root() / "configs" / "train.json", *configs]
    overrides = {"dataset_dir": str(Path(dataset).resolve()), "output_dir": str(run), **(settings or {})}
    earlier = run / "configs" / "train.json"
    if earlier.is_file() and (run / "checkpoints" / "last.pt").is_file():
        before, now = read_json(earlier, schema=TRAINED), merge_config(files, overrides)
        changed = sorted(k for k in {*before, *now} - _FREE_ON_RESUME if before.get(k) != now.get(k))
        if changed:
            raise InputError(
                f"{run} holds a run with other settings ({', '.join(changed)}). Give the same ones to go on, or "
                "another folder to start anew."
            )
    run_config("training", files, overrides)


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
        scales_um: sides of the cells that units are summed to.
        name: of the JSON, the split's by default.
        size_um: which of the slides' unit sizes; on the data set that was trained on the coarsest that was asked for
            there, which may be summed from bins; else the slides' coarsest.
        settings: further keys. Text is data, unless it is `Code`.
        trust: whether the model may run code of its own.

    Raises:
        InputError: if there is nothing to score, or training's own `validation.json` would be replaced by figures of
            something else.
    """
    run, model = trained_run(run, trust)
    trained_with = run / "configs" / "train.json"
    trained = read_json(trained_with, schema=TRAINED) if trained_with.is_file() else {}
    trained_data = Path(str(unquoted(trained["dataset_dir"]))).resolve() if trained else None
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
    with alone_at(run / "evaluation" / f"{written}.json"):
        run_config("evaluating", [bundle_root() / "configs" / "evaluate.json", model], overrides)
    return run / "evaluation" / f"{written}.json"


def predict(
    slide: str | Path, out: str | Path | None, run: str | Path, settings: Mapping[str, Any], trust: bool = False
) -> list[Path]:
    """Predict a slide's units and write them as AnnData; killed, the same call goes on where it was.

    Args:
        slide: a slide that cuCIM, tifffile or OpenSlide reads.
        out: the `.h5ad` or `.zarr` to write; None where only a map is wanted.
        run: the run folder of the model.
        settings: which units: `units`, or `spot_um` and `pitch_um`, or `bin_um`; `slide_mpp`, `genes`, `map`, ...;
            `standard_error` for a layer of that name (see `bundle.inference.uncertainty`; eight times the work). Text is
            data, unless it is `Code`.
        trust: whether the model may run code of its own.

    Returns:
        The files written.
    """
    settings = dict(settings)
    if settings.pop("standard_error", False):
        run, _ = trained_run(run, trust)
        with_standard_error(lambda image, path, keys: predict(image, path, run, keys, trust), slide, out, run, settings)
        return [Path(str(out))]
    for path, endings in (
        (out, (".h5ad", ".zarr")),
        (settings.get("map"), (".zarr",)),
        (settings.get("nifti"), _NIFTI),
    ):
        if path is None:
            continue
        if not str(path).endswith(endings):
            raise InputError(f"{path}: end its name in {' or '.join(endings)}.")
        if Path(path).is_dir() and Path(path).suffix != ".zarr":
            raise InputError(f"{path} is a folder; give the name of the file to write.")
        for name in _unit_files(out, settings) if out is not None and path is out else [Path(path)]:
            check_output(name, (slide, settings.get("units"), *_parts(run)))
        make_folder(Path(path).resolve().parent)
    if out is None and any(settings.get(key) is not None for key in ("units", "spot_um", "bin_um")):
        raise InputError("Units are asked for, but no file to write them to: give OUT.h5ad after the slide.")
    if out is not None and settings.get("map") is not None and Path(out).resolve() == Path(settings["map"]).resolve():
        raise InputError(f"{out} is asked for twice, for units and for the map; give one another name.")
    if Path(slide).is_dir():
        raise InputError(f"{slide} is a folder; give one slide, or a table of slides (docs/cohorts.md).")
    if out is None and not settings.get("map") and not settings.get("nifti"):
        raise InputError("Nothing to write: give OUT.h5ad for units, or --map OUT.zarr, or --nifti OUT.nii.gz.")
    run, model = trained_run(run, trust)
    overrides = {
        "slides": str(Path(slide).resolve()),
        "output": None if out is None else str(Path(out).resolve()),
        "model_dir": str(run / "models"),
        **{k: v for k, v in settings.items() if v is not None},
    }
    keep_freed_memory()
    with ExitStack() as stack:
        for path in (out, settings.get("map"), settings.get("nifti")):
            if path is not None:
                stack.enter_context(alone_at(Path(path).resolve()))
        run_config("inferring", [bundle_root() / "configs" / "inference.json", model], overrides)
    units = [] if out is None else _unit_files(out, settings)
    return units + [Path(path) for key in ("map", "nifti") if (path := settings.get(key)) is not None]


def _unit_files(out: str | Path, settings: Mapping[str, Any]) -> list[Path]:
    """The files of units that a prediction writes: one, or one for each size of bins."""
    sizes = settings.get("bin_um")
    several = isinstance(sizes, (list, tuple)) and all(isinstance(size, (int, float)) for size in sizes)
    suffixes = file_suffixes(unit_grids(bin_um=sizes)) if several else [""]  # type: ignore[arg-type]
    return [Path(out).with_stem(Path(out).stem + suffix) for suffix in suffixes]


def _parts(run: str | Path) -> list[Path]:
    """What a prediction reads of a run."""
    return [Path(run) / part for part in ("models/model.pt", "models/panel.json", "configs/model.json")]


def check_prediction(
    run: str | Path, settings: Mapping[str, Any], genes: Sequence[str] | None, trust: bool = False
) -> None:
    """Refuse what no slide can be predicted with, before the first is opened.

    Raises:
        InputError: if a setting or a gene is not usable with the run, or the run needs `trust`.
    """
    run, model = trained_run(run, trust)
    merge_config([bundle_root() / "configs" / "inference.json", model], {**settings, "model_dir": str(run / "models")})
    load_panel(run / "models" / "panel.json").refuse_unknown(genes or [], run / "models" / "panel.json")


def trained_run(run: str | Path, trust: bool = False) -> tuple[Path, Path]:
    """A run's folder and the configuration of its model, which is checked before anything of it runs.

    Args:
        run: the run folder.
        trust: whether the model may run code of its own.

    Raises:
        InputError: if the run was not finished, its weights are damaged, it would run code unasked, or links in it
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
