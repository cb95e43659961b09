"""Whether a model's description holds anything but what PixNet's own models do.

A configuration can run any code. A model may come from a stranger, so its description runs only if every part of it is
on the list below, or its user trusts whoever made it.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ..errors import InputError
from ..files.checking import check
from ..files.reading import read_json
from ..files.schemas import MODEL
from .config_file import ConfigFile
from .earlier import today
from .literals import unescape

__all__ = [
    "BACKBONE_OF_RUN",
    "BACKBONE_OF_START",
    "MODEL_KEYS",
    "TRAINING_KEYS",
    "check_model",
    "check_override",
    "code_in_current_folder",
    "find_untrusted",
    "is_of_a_run",
    "read_model",
    "refuse_code",
    "refuse_links",
    "within",
]

#: What evaluation and prediction take over from training: `configs/model.json`.
MODEL_KEYS = ("mpp", "tile_px", "head", "n_programs", "network_def", "intensity")
#: What a training that goes on from the weights takes over besides: `configs/recipe.json`.
TRAINING_KEYS = ("batch_size", "crop_px", "crops_per_slide", "unit_sizes_um", "max_units", "loss")

#: The classes of PixNet's own models.
_TARGETS = {
    f"networks.{name}"
    for name in (
        "BackboneEncoder",
        "EfficientNetLiteEncoder",
        "ExpressionLoss",
        "KMeansPatchEncoder",
        "PixNet",
        "PlainSwinUNETR",
        "SwinEncoder",
        "RidgeBranch",
    )
}
#: Folders of a run that commands write into.
_WRITTEN = ("checkpoints", "configs", "evaluation", "models", "predictions", "tensorboard", "tuned")
#: Files of a run that commands read, or replace as a whole. They may be links, as in the cache of a model hub.
_READ = {
    *("configs/model.json", "configs/recipe.json", "configs/train.json", "models/model.pt", "models/panel.json"),
    *("evaluation/validation.json", "evaluation/validation_genes.csv"),
}
#: Where a run keeps the `config.json` of its backbone: as its `model.json` writes it, and its `recipe.json`.
BACKBONE_OF_RUN, BACKBONE_OF_START = "$@model_dir + '/backbone'", "$@start_from + '/models/backbone'"
#: The expressions that PixNet's own configurations write there.
_EXPRESSIONS = {"$@head != 'linear'", "$@panel.std", BACKBONE_OF_RUN, BACKBONE_OF_START}
#: Arguments of networks that name a file or folder.
_OPENED = ("folder", "weights")


@contextmanager
def code_in_current_folder(wanted: bool) -> Iterator[None]:
    """Let a configuration import the modules of the current folder, as `python -m monai.bundle` does.

    The folder comes last on `sys.path`, so that its files never replace an installed package or the standard library.

    Args:
        wanted: whether the configuration is the user's own, or the user trusts it. Otherwise nothing changes: a
            `cucim.py` in a folder that somebody downloaded must not run.
    """
    folder = os.getcwd()
    if not wanted or folder in sys.path:
        yield
        return
    sys.path.append(folder)
    try:
        yield
    finally:
        sys.path.remove(folder)


def read_model(path: str | Path, trust: bool = False) -> dict[str, Any]:
    """Read a run's `model.json` or `recipe.json`.

    Args:
        path: the file.
        trust: whether it may run code of its own.

    Raises:
        InputError: if it is no configuration, or would run such code unasked.
    """
    content = read_json(path)
    if not isinstance(content, dict):
        raise InputError(f"{path} describes no model: it must hold keys and values. Copy it again.")
    return check_model(ConfigFile(Path(path), content), trust)


def check_model(file: ConfigFile, trust: bool = False) -> dict[str, Any]:
    """Refuse a run's configuration that would run code of its own; return it under today's names.

    Args:
        file: a `model.json` or `recipe.json` that has been read.
        trust: whether it may run code of its own.

    Raises:
        InputError: if it would run such code unasked, or a value is of the wrong kind.
    """
    content = today(file.content)
    if not trust:
        refuse_code(content, file.path)
    check(content, MODEL, str(file.path))
    return content


def check_override(file: ConfigFile, trust: bool = False) -> None:
    """Refuse code in a configuration that is used with a stranger's model and may be part of it.

    Args:
        file: a configuration that has been read. Numbers, true, false and null run nothing, under whatever key.
        trust: whether it may run code of its own.

    Raises:
        InputError: if it would run such code unasked.
    """
    if not trust:
        content = today(file.content)
        refuse_code({k: v for k, v in content.items() if isinstance(v, (str, list, dict))}, file.path)


def refuse_code(content: Mapping[str, Any], path: str | Path) -> None:
    """Refuse a model's description that holds more than PixNet writes itself.

    Raises:
        InputError: that names the first such key and what it would do.
    """
    try:
        found = find_untrusted(content, Path(path).absolute().parent.parent if is_of_a_run(path) else None)
    except RecursionError as error:
        raise InputError(f"{path} nests lists or keys too deeply.") from error
    if found is not None:
        key, does = found
        raise InputError(
            f'{path}: "{key}" would {does}. PixNet\'s own models need nothing like it. If you trust whoever made this '
            "one, give --trust (in the label server: --conf trust true)."
        )


def within(run: Path, name: str) -> Path:
    """Where a file or folder of a run is, with all links followed.

    Raises:
        InputError: if that is outside of the run.
    """
    path = (run / name).resolve()
    if not path.is_relative_to(run.resolve()):
        raise InputError(f"{run / name} is a link to {path}, outside of the run. Put a copy in its place.")
    return path


def refuse_links(run: str | Path) -> None:
    """Refuse a run folder in which a command would write somewhere else; the folder itself may be a link.

    Raises:
        InputError: if a link in it, where commands write, leads outside.
    """
    run = Path(run)
    for link in _links(run):
        name = link.relative_to(run).as_posix()
        if not (name in _READ and link.is_file()):
            within(run, name)


def _links(run: Path) -> Iterator[Path]:
    """The links among a run's folders, all that is in these, and its hidden files (marker, locks)."""
    if not run.is_dir():
        return
    for item in run.iterdir():
        if item.is_symlink() and (item.name in _WRITTEN or item.name.startswith(".")):
            yield item
    for name in _WRITTEN:
        for folder, folders, files in os.walk(run / name):
            yield from (path for path in (Path(folder, part) for part in folders + files) if path.is_symlink())


def is_of_a_run(path: str | Path) -> bool:
    """Whether a configuration is one that training wrote, so that it may be a stranger's."""
    folder = Path(path).absolute().parent
    return folder.name == "configs" and (folder.parent / "models" / "panel.json").is_file()


def find_untrusted(content: Mapping[str, Any], run: Path | None = None) -> tuple[str, str] | None:
    """The first key of a model's description that is not on the list, and what it would do; None where all are.

    Nothing is evaluated, imported or opened.

    Args:
        content: the description.
        run: the run folder that it may name files and folders of.
    """
    for key, value in content.items():
        if key not in (*MODEL_KEYS, *TRAINING_KEYS):
            return _shown(key), "change a part of PixNet's configuration that is not the model's"
        found = _in(key, value)
        if found is not None:
            return found
    for place, value in _opened("", content):
        if value is not None and not _is_of_run(value, run):
            return place, f"open {_shown(unescape(value))}, outside of the run"
    return None


def _opened(place: str, value: Any) -> Iterator[tuple[str, Any]]:
    """What names a file or a folder."""
    items = value.items() if isinstance(value, Mapping) else enumerate(value) if isinstance(value, list) else ()
    for key, item in items:
        inner = f"{place}#{_shown(key)}".lstrip("#")
        if key in _OPENED:
            yield inner, item
        else:
            yield from _opened(inner, item)


def _is_of_run(value: Any, run: Path | None) -> bool:
    path = unescape(value)
    if not isinstance(path, str) or path in (BACKBONE_OF_RUN, BACKBONE_OF_START):
        return isinstance(path, str)
    is_data = path != value or not path.startswith(("$", "@", "%"))
    return is_data and "\0" not in path and run is not None and Path(path).resolve().is_relative_to(run.resolve())


def _in(place: str, value: Any) -> tuple[str, str] | None:
    if isinstance(value, str):
        does = _of_text(value)
        return None if does is None else (place, does)
    if isinstance(value, dict):
        items = list(value.items())
    else:
        items = list(enumerate(value)) if isinstance(value, list) else []
    for key, item in items:
        found = _in_item(f"{place}#{_shown(key)}", key, item)
        if found is not None:
            return found
    return None


def _in_item(place: str, key: Any, value: Any) -> tuple[str, str] | None:
    if key == "_target_":
        known = isinstance(value, str) and value in _TARGETS
        return None if known else (place, f"run {_shown(value)}")
    if isinstance(key, str) and not key.isidentifier():
        return place, "be no argument of a network"
    if isinstance(key, str) and key.startswith("_") and key not in ("_disabled_", "_desc_"):
        return place, f"be used by MONAI as {key}"
    return _in(place, value)


def _of_text(text: str) -> str | None:
    if text.startswith("%"):
        return f"copy from {_shown(text[1:])}"
    is_plain = not text.startswith("$") or text in _EXPRESSIONS or unescape(text) != text
    return None if is_plain else f"run the code {_shown(text[1:])}"


def _shown(value: Any) -> str:
    """One line of at most 80 characters."""
    text = " ".join(str(value).split())
    return text if len(text) <= 80 else f"{text[:80]}..."
