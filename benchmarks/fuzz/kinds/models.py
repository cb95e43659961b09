"""A stranger's `model.json` and the other files of a run."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

from ..base import TINY, settings
from ..case import Build, Case, Must, kind
from ..checks import trained
from ..damage import damage
from .units import of_training
from .weights import SECRET, read_run, use_run


def bad_values(build: Build) -> list[Any]:
    """What no key of a configuration is."""
    return [
        None, "abc", "", -1, 0, 0.5, float("nan"), float("inf"), [], {}, True, [1, 2], {"a": 1}, 10**30, "@nothing",
        "@", "$", "$[", "$1/0", "%nothing", "@network_def", "$@n_genes", "%models/panel.json", "#", "a::b", [[]],
        "é\ud83d\ude00", "../../x", -(10**9), 1e-300, "@network_def::encoder", {"_target_": "nothing.Such"},
        {"_target_": 5}, {"_target_": "networks.PixNet"}, {"_disabled_": True}, [None], "x" * 10_000,
    ]  # fmt: skip


def runs_code(build: Build) -> Any:
    """What executes where a configuration is trusted."""
    code = build.payload
    return build.pick(
        f"${code}",
        {"_target_": "builtins.eval", "_args_": [code]},
        {"_target_": "os.mkdir", "path": str(build.marker)},
        {"_target_": "os.system", "command": f"touch {build.marker}"},
        {"_target_": "pathlib.Path.touch", "self": f"$__import__('pathlib').Path('{build.marker}')"},
        [f"${code}"],
        {"a": {"b": f"${code}"}},
        {"_target_": "subprocess.getoutput", "cmd": f"touch {build.marker}"},
        {"_target_": "torch.nn.Identity", "_requires_": f"${code}"},
        {"_target_": "torch.nn.Identity", "_disabled_": f"${code}"},
    )


def places(content: Any, above: tuple = ()) -> list[tuple]:
    """The keys of every value below."""
    if not isinstance(content, dict):
        return [above] if above else []
    own = [above] if above else []
    return own + [place for key, value in content.items() for place in places(value, (*above, key))]


def put(content: dict[str, Any], place: tuple, value: Any) -> None:
    """Put a value in a place."""
    for key in place[:-1]:
        content = content[key]
    content[place[-1]] = value


@kind("models", 85)
def models(build: Build) -> Case:
    """Values that are none, and values that execute."""
    run = build.run()
    path = run / "configs" / "model.json"
    content = json.loads(path.read_text())
    must: Must = "either"
    same = False
    found = places(content)
    place = found[int(build.rng.integers(len(found)))]
    where = "#".join(place)
    how = build.word(
        "value", "value", "value", "code", "code", "code", "new key", "missing", "harmless", "damage", "encoding"
    )
    if how == "value":
        values = bad_values(build)
        value = values[int(build.rng.integers(len(values)))]
        put(content, place, value)
        how = f"{where}={json.dumps(value)[:40]}"
    elif how == "code":
        value = runs_code(build)
        key = build.word(
            "place", "place", "new", "imports", "initialize", "run", "panel", "handlers", "_meta_", "device"
        )
        if key == "place":
            put(content, place, value)
        elif key in ("imports", "initialize", "run"):
            content[key] = [value]
        else:
            where = key
            content[key] = value
        how = f"code at {where}"
    elif how == "new key":
        content[build.word("unknown", "output", "slides", "_target_", "$x", "network_def#head", "")] = 3
    elif how == "missing":
        parent = content
        for key in place[:-1]:
            parent = parent[key]
        del parent[place[-1]]
        how = f"without {where}"
    elif how == "harmless":
        same, must = True, "right"
        content = dict(sorted(content.items()))
    path.write_text(json.dumps(content, indent=7))
    if how == "damage":
        how = damage(path, build.rng)
    elif how == "encoding":
        encoding = build.word("utf-8-sig", "utf-16", "utf-32")
        path.write_text(json.dumps(content), encoding=encoding)
        how = f"in {encoding}"
    case = use_run(build, run, f"model.json {how}", must, same)
    if case.must == "right" and case.arguments[0] != "predict":
        case.must = "either"
    return case


_FILES = (
    "configs/model.json", "configs/train.json", "models/model.pt", "models/panel.json", "evaluation/validation.json",
    "evaluation/validation_genes.csv", "metrics.csv", "checkpoints/last.pt", "configs/recipe.json",
)  # fmt: skip


@kind("runs", 75)
def runs(build: Build) -> Case:
    """Folders of runs that lack files, or hold others in their place."""
    how = build.word("gone", "folder", "damage", "damage", "panel", "link", "name", "resume", "resume", "not a run")
    if how == "resume":
        return _resumed(build)
    run = build.run()
    name = build.word(*_FILES)
    path = run / name
    if how == "gone":
        path.unlink()
    elif how == "folder":
        path.unlink()
        path.mkdir()
    elif how == "damage":
        how = damage(path, build.rng)
    elif how == "panel":
        name = "models/panel.json"
        return use_run(build, run, _panel(build, run / name))
    elif how == "link":
        return _linked(build, run)
    elif how == "name":
        return _named(build, run)
    else:
        shutil.rmtree(run)
        text = build.word("", "a file")
        if text:
            run.write_text(text)
        else:
            run.mkdir()
        name = "all"
    return use_run(build, run, f"{name}: {how}")


def _panel(build: Build, path: Path) -> str:
    content = json.loads(path.read_text())
    key = build.word(*content)
    if key in ("genes", "panels") and build.chance(0.5):
        code = f"${build.payload}"
        content["genes"][2] = code
        content["panels"] = {name: [*genes[:2], code, *genes[3:]] for name, genes in content["panels"].items()}
        path.write_text(json.dumps(content))
        return "panel.json: a gene that is code"
    values = [*bad_values(build), f"${build.payload}", [float("nan")] * 30, [1.0], [0.0] * 30, ["a"] * 30, [None] * 30]
    value = values[int(build.rng.integers(len(values)))]
    if build.chance(0.1):
        del content[key]
    else:
        content[key] = value
    path.write_text(json.dumps(content))
    return f"panel.json: {key}={json.dumps(content.get(key))[:40]}"


def _linked(build: Build, run: Path) -> Case:
    """Files outside of the run do not leave with it."""
    secret = build.input("elsewhere/config.json")
    secret.write_text(json.dumps({"note": SECRET}))
    how = build.word("link", "folder", "folder of an encoder")
    if how == "link":
        target = run / build.word("evaluation/validation.json", "evaluation/validation_genes.csv")
        target.unlink()
        target.symlink_to(secret)
    else:
        path = run / "configs" / "model.json"
        content = json.loads(path.read_text())
        (content["network_def"]["encoder"] if "encoder" in how else content)["folder"] = str(secret.parent)
        path.write_text(json.dumps(content))
    return read_run(build, run, "export-bundle", f"a file from outside the run: {how}")


def _named(build: Build, run: Path) -> Case:
    """Names of results that lead elsewhere."""
    name = build.word(
        "../x", "../../../in/x", "/x", "a/b", "..", ".", "$x", "@x", "%x", "a#b", "x" * 300, "", "validation"
    )
    if name == "/x":
        name = str(build.folder / "in" / "x")
    case = read_run(build, run, "evaluate", f"--name {name[:20]!r}")
    if name and "/" not in name:
        case.writes = [*case.writes, f"out/run/evaluation/{name}*"]
    case.check = None
    case.arguments = [*case.arguments, "--name", name]
    return case


def _resumed(build: Build) -> Case:
    """A training continues from a damaged checkpoint, or after other files of its folder were changed."""
    run = build.out("run")
    shutil.copytree(build.base.run, run)
    for gone in ("models/model.pt",) if build.chance(0.5) else ():
        (run / gone).unlink()
    name = build.word(
        "checkpoints/last.pt", "checkpoints/last.pt", "configs/train.json", "metrics.csv", "models/panel.json"
    )
    how = build.word("damage", "damage", "gone", "text", "pickle")
    path = run / name
    if how == "damage":
        how = damage(path, build.rng)
    elif how == "gone":
        path.unlink()
    elif how == "text":
        path.write_text("null")
    else:
        import torch

        from .labels import _Runs

        if path.suffix == ".pt":
            torch.save({"epoch": _Runs(build.payload)}, path)
    arguments = ["train", str(build.base.dataset), str(run), *settings({**TINY, "max_epochs": 3})]
    leaves = [*of_training("run"), "out/run/models/*", "out/run/evaluation/*"]
    return Case(f"goes on, {name}: {how}", arguments, outputs=[run], leaves=leaves, check=trained(run))
