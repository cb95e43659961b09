"""The checks of MONAI's model zoo as functions of a bundle, after the zoo's own CI."""

from __future__ import annotations

import json
import re
import shutil
import tomllib
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from monai.bundle import ConfigWorkflow, ckpt_export, verify_metadata, verify_net_in_out

from bundle.commands import bundle_root
from bundle.export import load_network

from ..export import torchscript
from ..processes import monai_command, run_monai

__all__ = ["CHECKS", "SHORT", "WORKFLOWS", "Subject", "judge"]

_ROOT = bundle_root()
_LARGE_MB = 25
#: Keys that the zoo's CONTRIBUTING.md asks for by name.
_KEYS = {
    "inference": "bundle_root device network_def inferer output_dir",
    "train": "bundle_root device dataset_dir output_dir val_interval train#trainer#max_epochs train#dataset#data "
    "train#handlers train#preprocessing train#inferer validate#evaluator validate#handlers validate#dataset#data "
    "validate#preprocessing validate#inferer validate#key_metric",
}


class NotRun(Exception):
    """A check that was not made, and why."""


class CannotPass(Exception):
    """A check that fails for a known reason, which the model card states."""


@dataclass(frozen=True)
class Subject:
    """What is checked.

    Attributes:
        folder: the bundle.
        run: a run of its network.
        dataset: what the run was trained on.
        work: where checks may write.
    """

    folder: Path
    run: Path
    dataset: Path
    work: Path

    def read(self, name: str) -> dict[str, Any]:
        """A JSON file of its `configs`."""
        return json.loads((self.folder / "configs" / f"{name}.json").read_text())


def _demand(condition: bool, problem: str) -> None:
    if not condition:
        raise ValueError(problem)


def _necessary_files(subject: Subject) -> None:
    for name in ("configs/metadata.json", "LICENSE"):
        _demand((subject.folder / name).is_file(), f"{name} is missing")


def _weights(subject: Subject) -> None:
    if not (subject.folder / "models" / "model.pt").is_file():
        raise CannotPass("no weights are shipped; `pixnet export-bundle` adds a run's")


def _configurations(subject: Subject) -> None:
    for name in ("inference.json", "train.json", "evaluate.json", "logging.conf"):
        _demand((subject.folder / "configs" / name).is_file(), f"configs/{name} is missing")


def _documents(subject: Subject) -> None:
    for name in ("README.md", "data_license.txt"):
        _demand((subject.folder / "docs" / name).is_file(), f"docs/{name} is missing")
    card = (subject.folder / "docs" / "README.md").read_text()
    for what in ("--use_trace", "TensorRT"):
        _demand(what in card, f"docs/README.md says nothing of {what}")


def _large_files(subject: Subject) -> None:
    _demand(not list(subject.folder.glob("large_files.*")), "a list of addresses, though nothing is hosted")
    folders = ("bundle", "configs", "docs", "models", "networks", "transforms")
    for path in (path for folder in folders for path in (subject.folder / folder).rglob("*") if path.is_file()):
        if path.stat().st_size > _LARGE_MB * 1e6:
            raise CannotPass(f"{path.name} has over {_LARGE_MB} MB and would have to be hosted, which it is not")


def _version(subject: Subject) -> None:
    metadata = subject.read("metadata")
    _demand(metadata["version"] in metadata["changelog"], "the version is not in the metadata's changelog")


def _schema(subject: Subject) -> None:
    # MONAI downloads the schema unless it is there already.
    schema = Path(shutil.copy(_ROOT / "tests" / "metadata_schema.json", subject.work / "schema.json"))
    verify_metadata(meta_file=str(subject.folder / "configs" / "metadata.json"), filepath=str(schema))


def _requirements(subject: Subject) -> None:
    metadata = subject.read("metadata")
    named = metadata["required_packages_version"] | {"torch": metadata["pytorch_version"]}
    named |= {"monai": metadata["monai_version"], "numpy": metadata["numpy_version"]}
    pinned = dict(re.findall(r"^([\w.-]+)==(\S+)$", (_ROOT / "constraints.txt").read_text(), re.MULTILINE))
    _demand({name: pinned.get(name) for name in named} == named, "other versions than constraints.txt has")
    project = tomllib.loads((_ROOT / "pyproject.toml").read_text())["project"]
    needed = {re.split(r"[^\w.-]", requirement)[0] for requirement in project["dependencies"]}
    _demand(needed == named.keys(), "other packages than pyproject.toml has")
    here = {name: version(name).partition("+")[0] for name in named}
    if here != named:
        raise NotRun("other versions are installed here than the metadata names")


def _keys(subject: Subject) -> None:
    for name, keys in _KEYS.items():
        for key in keys.split():
            found: Any = subject.read(name)
            for part in key.split("#"):
                _demand(part in found, f"{name}.json has no {key}")
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
            _demand(not Path(text).is_absolute(), f"{path.name} names a place of one machine, {text}")


def _model(subject: Subject) -> dict[str, Any]:
    return json.loads((subject.run / "configs" / "model.json").read_text())


def _properties(kind: str, name: str, subject: Subject) -> None:
    own = {"dataset_dir": str(subject.dataset), "bundle_root": str(subject.folder)}
    own |= {"model_dir": str(subject.run / "models"), "output_dir": str(subject.work / "unused")}
    if name == "inference":
        own |= {"slides": str(_slide(subject)), "output": str(subject.work / "unused.h5ad")}
    workflow = ConfigWorkflow(
        config_file=str(subject.folder / "configs" / f"{name}.json"),
        meta_file=str(subject.folder / "configs" / "metadata.json"),
        logging_file=False,
        workflow_type=kind,
        **{**_model(subject), **own, **({"bin_um": 16.0} if name == "inference" else {})},
    )
    workflow.initialize()
    _demand(workflow.network_def is not None, "no network")
    missing = workflow.check_properties()
    _demand(bool(workflow.properties) and missing == [], f"missing: {missing}")


def _slide(subject: Subject) -> Path:
    return sorted((subject.dataset / "slides").glob("*.tif"))[-1]


def _shapes(subject: Subject) -> None:
    verify_net_in_out(**_network(subject), device="cpu")


def _network(subject: Subject) -> dict[str, Any]:
    configs = subject.folder / "configs"
    files = {"meta_file": str(configs / "metadata.json"), "config_file": str(configs / "inference.json")}
    return {"net_id": "network_def", "bundle_root": str(subject.folder), **files}


def _scripted(subject: Subject) -> None:
    _only_with_weights(subject)
    out, weights = subject.work / "scripted.ts", subject.folder / "models" / "model.pt"
    try:
        ckpt_export(**_network(subject), filepath=str(out), ckpt_file=str(weights))
    except Exception:
        network, _ = load_network(subject.run)
        theirs = {type(module).__name__ for module in network.modules() if _is_monais(module) and not _scripts(module)}
        if not theirs:
            raise
        raise CannotPass(f"MONAI's own {', '.join(sorted(theirs))} cannot be scripted (docs/README.md)") from None


def _is_monais(module: torch.nn.Module) -> bool:
    """Whether neither a module nor what it is made of is ours."""
    homes = {type(part).__module__.partition(".")[0] for part in module.modules()}
    return type(module).__module__.startswith("monai.") and homes <= {"monai", "torch"}


def _scripts(module: torch.nn.Module) -> bool:
    try:
        torch.jit.script(module)
    except Exception:  # the compiler's errors have no common class
        return False
    return True


def _traced(subject: Subject) -> str:
    _only_with_weights(subject)
    network, _ = load_network(subject.run)
    side = 3 * network.grid_px
    traced = torchscript(subject.folder, subject.run, subject.work / "traced.ts", side)
    image = torch.randn((1, 3, side, side), generator=torch.Generator().manual_seed(5))
    with torch.no_grad():
        expected, got = network(image), traced(image)
    difference = float((got - expected).abs().max() / (expected.max() - expected.min()))
    _demand(difference <= 1e-4, f"the traced network differs by {difference:.1e} of the range of its values")
    with zipfile.ZipFile(subject.work / "traced.ts") as archive:
        held = {Path(name).name for name in archive.namelist()}
    _demand({"metadata.json", "inference.json"} <= held, "the file holds no metadata or configuration")
    return f"at one size; differs by {difference:.0e} of the range"


def _only_with_weights(subject: Subject) -> None:
    if not (subject.folder / "models" / "model.pt").is_file():
        raise NotRun("there are no weights here, see above")


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
    "properties of train.json": partial(_properties, "train", "train"),
    "properties of evaluate.json": partial(_properties, "eval", "evaluate"),
    "properties of inference.json": partial(_properties, "infer", "inference"),
    "properties of supported apps": partial(_not_run, "the metadata names none, so the zoo makes no such check"),
    "verify_net_in_out": _shapes,
    "ckpt_export by scripting": _scripted,
    "ckpt_export by tracing": _traced,
    "TensorRT": partial(_not_run, "needs an NVIDIA GPU; the zoo makes it for bundles that ask for it"),
    "flake8, black, isort, pytype": partial(_not_run, "`make check` runs ruff and mypy in their place"),
}


#: Training that takes seconds on a small generated data set.
SHORT = {"max_epochs": 1, "crops_per_slide": 2, "crop_px": 256, "min_total": 20}


def _workflow(name: str, ranks: int, subject: Subject) -> None:
    """MONAI's own command, from inside the bundle."""
    out = subject.work / f"{name}_{ranks}"
    files = [subject.folder / "configs" / f"{name}.json", subject.run / "configs" / "model.json"]
    files += [subject.folder / "configs" / f"multi_gpu_{name}.json"] if ranks > 1 else []
    options: dict[str, Any] = {"dataset_dir": subject.dataset, "output_dir": out}
    if name == "train":
        options |= SHORT
    else:
        options |= {"model_dir": subject.run / "models"}
    if name == "inference":
        options |= {"slides": _slide(subject), "bin_um": 16, "output": out / "bins.h5ad"}
    run_id = {"train": "training", "evaluate": "evaluating", "inference": "inferring"}[name]
    run_monai(monai_command(run_id, files, options, ranks), cwd=subject.folder)
    written = {"train": "models/model.pt", "evaluate": "evaluation/test.json", "inference": "bins.h5ad"}[name]
    _demand((out / written).is_file(), f"it ran, but there is no {written}")


#: The zoo's unit tests of a bundle, `test_NAME.py` and `test_NAME_dist.py`; `tests/` has more of its own.
WORKFLOWS: dict[str, Check] = {
    "run training": partial(_workflow, "train", 1),
    "run evaluating": partial(_workflow, "evaluate", 1),
    "run inferring": partial(_workflow, "inference", 1),
    "run training, two processes": partial(_workflow, "train", 2),
    "run evaluating, two processes": partial(_workflow, "evaluate", 2),
}


def judge(check: Check, subject: Subject) -> tuple[str, str]:
    """What came of a check, `passed`, `not run`, `cannot pass` or `failed`, and what is to be said of it."""
    subject.work.mkdir(parents=True, exist_ok=True)
    try:
        return "passed", check(subject) or ""
    except NotRun as reason:
        return "not run", str(reason)
    except CannotPass as reason:
        return "cannot pass", str(reason)
    except Exception as error:
        return "failed", f"{type(error).__name__}: {' '.join(str(error).split())[-300:]}"
