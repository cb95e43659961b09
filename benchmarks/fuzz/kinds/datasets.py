"""`dataset.json`, read by train and evaluate."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

from ..case import Build, Case, Must, kind
from ..checks import finite_json
from ..damage import damage
from .units import of_evaluation, train


@kind("datasets", 80)
def datasets(build: Build) -> Case:
    """Splits, records and names of every bad kind."""
    folder = build.copy(build.base.dataset, build.word("data", "data", "my data", "dätä"))
    path = folder / "dataset.json"
    content: Any = json.loads(path.read_text())
    split = build.word("training", "validation", "test")
    record = content[split][0]
    must: Must = "either"
    value = _values(build)
    how = build.word(
        "record", "record", "record", "record", "split", "split", "name", "name", "top", "file", "harmless", "leak"
    )
    if how == "record":
        key = build.word("image", "label", "patient", "mpp", "section", "block", "split_by", "extra", "lable")
        record[key] = value
        how = f"{split}: {key}={json.dumps(value)[:40]}"
    elif how == "split":
        if build.chance(0.2):
            del content[split]
        else:
            content[split] = build.pick(value, [value], {}, [], None, [[]], [content[split]])
        how = f"{split}={json.dumps(content.get(split))[:40]}"
    elif how == "top":
        key = build.word("split_by", "transcriptome", "name", "training", "")
        content[key] = value
        how = f"{key!r}={json.dumps(value)[:40]}"
    elif how == "name":
        how, must = _renamed(build, folder, record)
    elif how == "leak":
        other = build.word("training", "validation", "test")
        content[other].append(
            {**record, "section": "again"} if build.chance(0.5) else {**record, "image": "slides/../" + record["image"]}
        )
        how = f"a slide of {split} again in {other}"
        must = "sentence"
    elif how == "harmless":
        content = {"name": "a set", "licence": "CC0", **dict(reversed(content.items())), "modality": {"0": "H&E"}}
        record["note"] = "another column"
        must = "right"
    text = json.dumps(content, indent=1)
    path.write_text(text)
    if how == "file":
        encoding = build.word("utf-8-sig", "utf-16", "damage", "damage", "list", "deep", "folder", "nan")
        if encoding == "damage":
            how = damage(path, build.rng)
        elif encoding == "list":
            path.write_text(json.dumps([content]))
        elif encoding == "deep":
            path.write_text("[" * 100_000)
        elif encoding == "folder":
            path.unlink()
            path.mkdir()
        elif encoding == "nan":
            path.write_text(text.replace('"mpp": 1.0', '"mpp": NaN'))
        else:
            path.write_text(text, encoding=encoding)
        how = f"dataset.json: {encoding if encoding != 'damage' else how}"
    return _read_by(build, folder, how, must)


def _values(build: Build) -> Any:
    values: list[Any] = [
        None, "", "x", 3, -1.5, 0, float("nan"), float("inf"), 1e300, [], {}, [None], [1], {"a": "b"}, True,
        "../../etc/passwd", "/dev/null", "slides", ".", f"${build.payload}", "@network", "%x", "a#b",
        ["slides/P1.tif", 5], "x" * 5000, "../evil", "a/b", "\ud800", [0, 0, 300, 300], [300, 300, 0, 0],
        ["a", "b", "c", "d"], [0, 0], "P1", "unknown", "slides/P3.tif",
    ]  # fmt: skip
    return values[int(build.rng.integers(len(values)))]


def _renamed(build: Build, folder: Path, record: dict[str, Any]) -> tuple[str, Must]:
    """Files whose names look like something else."""
    name = build.word(
        "P one.tif", "ä.tif", "P.1.2.tif", "$x.tif", "@network.tif", "%x.tif", "a#b.tif", "a::b.tif", "P'1.tif",
        "P\"1.tif", "-x.tif", "{x}.tif", "P1", "$(touch EXECUTED).tif", "$open('EXECUTED','w').close().tif",
        "a\nb.tif", "*.tif", "[P].tif",
    )  # fmt: skip
    shutil.move(folder / record["image"], folder / "slides" / name)
    record["image"] = f"slides/{name}"
    plain = name in ("P one.tif", "ä.tif", "P.1.2.tif", "P'1.tif", "*.tif", "[P].tif", "{x}.tif")
    return f"a slide called {name!r}", "right" if plain else "either"


def _read_by(build: Build, folder: Path, what: str, must: Must) -> Case:
    if build.chance(0.5):
        return train(build, folder, f"{what}, train", must)
    run = build.out("run")
    shutil.copytree(build.base.run, run)
    arguments = ["evaluate", str(run), "--dataset", str(folder)]
    check = finite_json(run / "evaluation" / "test.json")
    leaves = ["out/run/predictions*"]
    return Case(f"{what}, evaluate", arguments, must, writes=of_evaluation("run"), leaves=leaves, check=check)
