"""The weights of a run, `models/model.pt`, damaged or of another making."""

from __future__ import annotations

import pickle
import shutil
from pathlib import Path
from typing import Any

from ..case import Build, Case, Must, kind
from ..checks import finite_json, predicted
from ..damage import damage, flip_bits, overwrite
from .labels import _Runs
from .slides import work_of
from .units import of_evaluation


def use_run(build: Build, run: Path, what: str, must: Must = "either", same: bool = False, **case: Any) -> Case:
    """A command that reads a run which came from somewhere."""
    command = build.word("predict", "predict", "predict", "evaluate", "evaluate", "report", "export-bundle")
    return read_run(build, run, command, what, must, same, **case)


def read_run(
    build: Build, run: Path, command: str, what: str, must: Must = "either", same: bool = False, **case: Any
) -> Case:
    """The same with a given command."""
    base = build.base
    what = f"{what}, {command}"
    if command == "predict":
        out = build.out("o.h5ad")
        arguments = ["predict", str(build.slide()), str(out), "--model", str(run), "--bin-um", "55"]
        check = predicted(out, base.result("bins.h5ad") if same else None)
        return Case(
            what, [*arguments, "--set", "all_genes=true"], must, [out], leaves=work_of("o.h5ad"), check=check, **case
        )
    if command == "export-bundle":
        out = build.out("model.zip")
        return Case(what, ["export-bundle", str(run), str(out)], must, [out], check=_without_secret(out), **case)
    if command == "report":
        out = build.out("report.html")
        return Case(what, ["report", str(run), str(out)], must, [out], **case)
    moved = build.out("run")
    shutil.move(run, moved)
    scores = moved / "evaluation" / "test.json"
    arguments = ["evaluate", str(moved), "--dataset", str(base.dataset), "--size-um", "55"]
    leaves = ["out/run/predictions*"]
    return Case(what, arguments, must, writes=of_evaluation("run"), leaves=leaves, check=finite_json(scores), **case)


#: What lies on the machine and is nobody's to pack.
SECRET = "a secret of this machine"


def _without_secret(path: Path) -> Any:
    def check() -> str | None:
        import zipfile

        with zipfile.ZipFile(path) as archive:
            if archive.testzip() is not None:
                return "the zip is damaged"
            packed = [name for name in archive.namelist() if SECRET.encode() in archive.read(name)]
        return f"a file from outside the run is packed as {packed[0]}" if packed else None

    return check


@kind("weights", 75)
def weights(build: Build) -> Case:
    """A sentence, or the weights' own prediction; never NaN, never code."""
    import torch

    run = build.run()
    path = run / "models" / "model.pt"
    state = torch.load(path, weights_only=True)
    names = [name for name, value in state.items() if value.is_floating_point() and value.numel()]
    name = names[int(build.rng.integers(len(names)))]
    must: Must = "either"
    same = False
    how = build.word(
        "damage", "damage", "damage", "flip", "4 KiB", "pickle", "old pickle", "shape", "nan", "huge", "extra",
        "missing", "a list", "nested", "half", "float64", "saved again", "renamed", "int", "empty", "another pickle",
    )  # fmt: skip
    if how == "damage":
        how = damage(path, build.rng)
    elif how == "flip":
        flip_bits(path, build.rng, 1)
    elif how == "4 KiB":
        overwrite(path, build.rng, 4096)
    elif how in ("pickle", "old pickle"):
        torch.save({"w": _Runs(build.payload), **state}, path, _use_new_zipfile_serialization=how == "pickle")
        must = "sentence"
    elif how == "another pickle":
        path.write_bytes(pickle.dumps(_Runs(build.payload)))
        must = "sentence"
    else:
        content: Any = dict(state)
        if how == "shape":
            content[name] = content[name].flatten()[: max(content[name].numel() // 2, 1)]
        elif how == "nan":
            content[name] = content[name] * float("nan")
            must = "sentence"
        elif how == "huge":
            content[name] = content[name] * 1e30
        elif how == "extra":
            content["another.weight"] = torch.zeros(3)
        elif how == "missing":
            del content[name]
        elif how == "a list":
            content, must = [content], "sentence"
        elif how == "nested":
            content = {build.word("state_dict", "model", "network"): content}
        elif how == "half":
            content = {key: value.half() if value.is_floating_point() else value for key, value in state.items()}
        elif how == "float64":
            content = {key: value.double() if value.is_floating_point() else value for key, value in state.items()}
            same = True
        elif how == "saved again":
            same, must = True, "right"
        elif how == "renamed":
            content = {f"module.{key}": value for key, value in state.items()}
        elif how == "int":
            content[name] = torch.zeros(content[name].shape, dtype=torch.int64)
        elif how == "empty":
            content, must = {}, "sentence"
        torch.save(content, path)
    case = use_run(build, run, f"weights: {how}", must, same)
    unread = {"report"} | ({"export-bundle"} if how == "nan" else set())  # these do not look at the values
    if case.must == "sentence" and case.arguments[0] in unread:
        case.must = "either"
    return case
