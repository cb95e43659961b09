"""Predict a slide's units and map with a trained model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from ..config.merge import merge_config
from ..config.root import bundle_root
from ..config.run import run_config
from ..data.panel import load_panel
from ..errors import InputError
from ..files.atomic import alone_at, make_folder
from ..files.ownership import check_output
from ..inference.lattices import file_suffixes, unit_grids
from ..inference.old_names import current_settings
from ..inference.uncertainty import with_standard_error
from ..speed.memory import keep_freed_memory
from .trained_run import trained_run

__all__ = ["check_prediction", "predict"]

_NIFTI = (".nii", ".nii.gz")


def predict(
    slide: str | Path, out: str | Path | None, run: str | Path, settings: Mapping[str, Any], trust: bool = False
) -> list[Path]:
    """Predict a slide's units and write them as AnnData; killed, the same call goes on where it was.

    Args:
        slide: a slide that cuCIM, tifffile or OpenSlide reads.
        out: the `.h5ad` or `.zarr` to write; None where only a map is wanted.
        run: the run folder of the model.
        settings: which units: `units`, or `spot_um` and `pitch_um`, or `bin_um`; `slide_mpp`, `genes`, `map`, ...;
            `standard_error` for a layer of that name (see `bundle.inference.uncertainty`; eight times the work). Text
            is data, unless it is `Code`.
        trust: whether the model may run code of its own.

    Returns:
        The files written.
    """
    settings = current_settings(settings)
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
    settings = current_settings(settings)
    merge_config([bundle_root() / "configs" / "inference.json", model], {**settings, "model_dir": str(run / "models")})
    load_panel(run / "models" / "panel.json").refuse_unknown(genes or [], run / "models" / "panel.json")
