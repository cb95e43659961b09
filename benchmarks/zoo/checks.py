"""The checks of MONAI's model zoo as functions of a bundle, after the zoo's own CI."""

from __future__ import annotations

import json
import re
import shutil
import tomllib
from collections.abc import Callable, Iterator
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

from monai.bundle import verify_metadata

from bundle.config.root import bundle_root

from .running import properties, scripted, shapes, traced, workflow
from .subject import CannotPass, NotRun, Subject, demand

__all__ = ["CHECKS", "WORKFLOWS", "judge"]

_ROOT = bundle_root()
_LARGE_MB = 25
#: Keys that the zoo's CONTRIBUTING.md asks for by name.
_KEYS = {
    "inference": "bundle_root device network_def inferer output_dir",
    "train": "bundle_root device dataset_dir output_dir val_interval train#trainer#max_epochs train#dataset#data "
    "train#handlers train#preprocessing train#inferer validate#evaluator validate#handlers validate#dataset#data "
    "validate#preprocessing validate#inferer validate#key_metric",
}


def _necessary_files(subject: Subject) -> None:
    for name in ("configs/metadata.json", "LICENSE"):
        demand((subject.folder / name).is_file(), f"{name} is missing")


def _weights(subject: Subject) -> None:
    if not subject.weights.is_file():
        raise CannotPass("no weights are shipped; `pixnet export-bundle` adds a run's")


def _configurations(subject: Subject) -> None:
    for name in ("inference.json", "train.json", "evaluate.json", "logging.conf"):
        demand((subject.folder / "configs" / name).is_file(), f"configs/{name} is missing")


def _documents(subject: Subject) -> None:
    for name in ("README.md", "data_license.txt"):
        demand((subject.folder / "docs" / name).is_file(), f"docs/{name} is missing")
    card = (subject.folder / "docs" / "README.md").read_text()
    for what in ("--use_trace", "TensorRT"):
        demand(what in card, f"docs/README.md does not mention {what}")


def _large_files(subject: Subject) -> None:
    demand(not list(subject.folder.glob("large_files.*")), "a list of addresses, though nothing is hosted")
    folders = ("bundle", "configs", "docs", "models", "networks", "transforms")
    for path in (path for folder in folders for path in (subject.folder / folder).rglob("*") if path.is_file()):
        if path.stat().st_size > _LARGE_MB * 1e6:
            raise CannotPass(f"{path.name} has over {_LARGE_MB} MB and would have to be hosted elsewhere")


def _version(subject: Subject) -> None:
    metadata = subject.read("metadata")
    demand(metadata["version"] in metadata["changelog"], "the version is not in the metadata's changelog")


def _schema(subject: Subject) -> None:
    # MONAI downloads the schema unless it is there already.
    schema = Path(shutil.copy(_ROOT / "tests" / "metadata_schema.json", subject.work / "schema.json"))
    verify_metadata(meta_file=str(subject.folder / "configs" / "metadata.json"), filepath=str(schema))


def _requirements(subject: Subject) -> None:
    metadata = subject.read("metadata")
    named = metadata["required_packages_version"] | {"torch": metadata["pytorch_version"]}
    named |= {"monai": metadata["monai_version"], "numpy": metadata["numpy_version"]}
    pinned = dict(re.findall(r"^([\w.-]+)==(\S+)$", (_ROOT / "constraints.txt").read_text(), re.MULTILINE))
    demand({name: pinned.get(name) for name in named} == named, "other versions than constraints.txt has")
    project = tomllib.loads((_ROOT / "pyproject.toml").read_text())["project"]
    needed = {re.split(r"[^\w.-]", requirement)[0] for requirement in project["dependencies"]}
    demand(needed == named.keys(), "other packages than pyproject.toml has")
    here = {name: version(name).partition("+")[0] for name in named}
    if here != named:
        raise NotRun("other versions are installed here than the metadata names")


def _keys(subject: Subject) -> None:
    for name, keys in _KEYS.items():
        for key in keys.split():
            found: Any = subject.read(name)
            for part in key.split("#"):
                demand(part in found, f"{name}.json has no {key}")
                found = found[part]


def _strings(content: Any) -> Iterator[str]:
    if isinstance(content, str):
        yield content
    elif isinstance(content, (dict, list)):
        for value in content.values() if isinstance(content, dict) else content:
            yield from _strings(value)


def _places(subject: Subject) -> None:
    for path in (subject.folder / "configs").glob("*.json"):
        for text in _strings(json.loads(path.read_text())):
            demand(not Path(text).is_absolute(), f"{path.name} names a place of one machine, {text}")


def _not_run(reason: str, _: Subject) -> None:
    raise NotRun(reason)


Check = Callable[[Subject], str | None]

CHECKS: dict[str, Check] = {
    "necessary files: metadata.json, LICENSE": _necessary_files,
    "preferred file: models/model.pt": _weights,
    "preferred files: configurations, logging": _configurations,
    "model card, data licence": _documents,
    f"no file over {_LARGE_MB} MB, no dead address": _large_files,
    "version in the changelog": _version,
    "version not used before": partial(_not_run, "needs the zoo's list of versions; a first one cannot be on it"),
    "metadata against a schema (reconstructed)": _schema,
    "metadata against the zoo's own file": partial(_not_run, "MONAI downloads it; nothing is fetched here"),
    "requirements, pinned and installed": _requirements,
    "names of keys": _keys,
    "no path of one machine in configs": _places,
    "properties of train.json": partial(properties, "train", "train"),
    "properties of evaluate.json": partial(properties, "eval", "evaluate"),
    "properties of inference.json": partial(properties, "infer", "inference"),
    "properties of supported apps": partial(_not_run, "the metadata names none, so the zoo makes no such check"),
    "verify_net_in_out": shapes,
    "ckpt_export by scripting": scripted,
    "ckpt_export by tracing": traced,
    "TensorRT": partial(_not_run, "needs an NVIDIA GPU; the zoo makes it for bundles that ask for it"),
    "flake8, black, isort, pytype": partial(_not_run, "`make check` runs ruff and mypy in their place"),
}


#: The zoo's unit tests of a bundle, `test_NAME.py` and `test_NAME_dist.py`; `tests/` has more of its own.
WORKFLOWS: dict[str, Check] = {
    "run training": partial(workflow, "train", 1),
    "run evaluating": partial(workflow, "evaluate", 1),
    "run inferring": partial(workflow, "inference", 1),
    "run training, two processes": partial(workflow, "train", 2),
    "run evaluating, two processes": partial(workflow, "evaluate", 2),
}


def judge(check: Check, subject: Subject) -> tuple[str, str]:
    """The outcome of a check (`passed`, `not run`, `cannot pass` or `failed`) and its explanation."""
    subject.work.mkdir(parents=True, exist_ok=True)
    try:
        return "passed", check(subject) or ""
    except NotRun as reason:
        return "not run", str(reason)
    except CannotPass as reason:
        return "cannot pass", str(reason)
    except Exception as error:
        return "failed", f"{type(error).__name__}: {' '.join(str(error).split())[-500:]}"
