"""Predict a slide's units and map with a trained model."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from ..config.root import bundle_root
from ..errors import InputError, require_extra
from .trained_run import trained_run

__all__ = ["check_prediction", "predict"]

logger = logging.getLogger(__name__)


def predict(
    slide: str | Path, out: str | Path | None, run: str | Path, settings: Mapping[str, Any], trust: bool = False
) -> list[Path]:
    """Predict a slide's units and write them as AnnData; after a stop, the same call continues.

    Args:
        slide: a slide that cuCIM, tifffile or OpenSlide reads, or a JPEG or PNG (with `slide_mpp`).
        out: the `.h5ad` or `.zarr` to write; None where only a map is wanted.
        run: the run folder of the model.
        settings: which units: `units`, or `spot_um` and `pitch_um`, or `bin_um`; `slide_mpp`, `genes`, `map`, ...;
            `standard_error` for a layer of that name (see `bundle.inference.uncertainty`; eight times the work). Text
            is data, unless it is `Code`.
        trust: whether the model may run code of its own.

    Returns:
        The files written.
    """
    settings = dict(settings)
    _check_request(slide, out, settings)
    run, model = trained_run(run, trust)
    # Imported here, and not above: PixNet refuses what it can before it spends seconds on these.
    from ..config.run import run_config
    from ..files.atomic import make_folder
    from ..files.lock import output_lock
    from ..files.ownership import check_output
    from ..readers.pictures import is_plain_picture
    from ..speed.memory import keep_freed_memory

    with_error = settings.pop("standard_error", False)
    if with_error:
        from ..inference.uncertainty import check_request, with_standard_error

        check_request(Path(out or "").suffix, settings)
    written = _files(out, settings)
    for path in written:
        check_output(path, (slide, settings.get("units"), *_parts(run)))
        make_folder(path.resolve().parent)
    if is_plain_picture(slide):
        slide, settings["slide_mpp"] = _as_slide(Path(slide), written[0], settings.get("slide_mpp"))
    if with_error:
        with_standard_error(lambda image, path, keys: predict(image, path, run, keys, trust), slide, out, run, settings)
        return written
    overrides = {
        "slides": str(Path(slide).resolve()),
        "output": None if out is None else str(Path(out).resolve()),
        "model_dir": str(run / "models"),
        **{k: v for k, v in settings.items() if v is not None},
    }
    keep_freed_memory()
    with ExitStack() as stack:
        for output in (out, settings.get("map"), settings.get("nifti")):
            if output is not None:
                stack.enter_context(output_lock(Path(output).resolve()))
        run_config("inferring", [bundle_root() / "configs" / "inference.json", model], overrides, trust)
    return written


def _as_slide(picture: Path, output: Path, mpp: float | None) -> tuple[Path, float]:
    """The tiled pyramid of a JPEG or PNG, which lies next to the output and is written once, and its µm per pixel."""
    from ..importing.prepare import preparation_tools
    from ..readers.pictures import as_slide

    target = output.resolve().with_name(f"{picture.stem}.slide.tif")
    logger.info("%s cannot be read piece by piece. PixNet uses a tiled copy: %s", picture, target)
    slide = as_slide(picture, target, preparation_tools().reader, mpp)
    return slide.path, slide.mpp


def _check_request(slide: str | Path, out: str | Path | None, settings: Mapping[str, Any]) -> None:
    """Refuse outputs that cannot be written and a slide that is none, before anything slow is imported."""
    for path, endings in (
        (out, (".h5ad", ".zarr")),
        (settings.get("map"), (".zarr",)),
        (settings.get("nifti"), (".nii", ".nii.gz")),
    ):
        if path is None:
            continue
        if not str(path).endswith(endings):
            raise InputError(f"{path}: end its name in {' or '.join(endings)}.")
        if Path(path).is_dir() and Path(path).suffix != ".zarr":
            raise InputError(f"{path} is a folder; give the name of the file to write.")
    if out is None and any(settings.get(key) is not None for key in ("units", "spot_um", "bin_um")):
        raise InputError("You ask for units, but name no file to write them to: give OUT.h5ad after the slide.")
    if out is not None and settings.get("map") is not None and Path(out).resolve() == Path(settings["map"]).resolve():
        raise InputError(f"You give {out} both for units and for the map; give one of them another name.")
    if Path(slide).is_dir():
        raise InputError(f"{slide} is a folder; give one slide, or a table of slides (docs/guide/cohorts.md).")
    if not Path(slide).is_file():
        raise InputError(f"No such slide: {slide}. Check the path.")
    if out is None and not settings.get("map") and not settings.get("nifti"):
        raise InputError("Nothing to write: give OUT.h5ad for units, or --map OUT.zarr, or --nifti OUT.nii.gz.")
    if settings.get("nifti") is not None:
        require_extra("nibabel", "A NIfTI", "nifti")


def _files(out: str | Path | None, settings: Mapping[str, Any]) -> list[Path]:
    """The files that a prediction writes; of units one, or one for each size of bins."""
    units = [] if out is None else _unit_files(out, settings)
    return units + [Path(path) for key in ("map", "nifti") if (path := settings.get(key)) is not None]


def _unit_files(out: str | Path, settings: Mapping[str, Any]) -> list[Path]:
    from ..inference.lattices import file_suffixes, unit_grids

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
    """Refuse settings that no slide can be predicted with, before the first slide is opened.

    Raises:
        InputError: if a setting or a gene is not usable with the run, or the run needs `trust`.
    """
    from ..config.merge import merge_config
    from ..data.panel import load_panel

    run, model = trained_run(run, trust)
    merge_config([bundle_root() / "configs" / "inference.json", model], {**settings, "model_dir": str(run / "models")})
    load_panel(run / "models" / "panel.json").refuse_unknown(genes or [], run / "models" / "panel.json")
