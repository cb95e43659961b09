"""Configurations: `--config` of train, `--set` of every command that has it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from ..base import TINY, settings
from ..case import Build, Case, kind
from ..checks import predicted, trained
from ..damage import damage
from .models import bad_values, places
from .slides import work_of
from .units import of_training

_CONFIGS = Path(__file__).parents[3] / "configs"
#: Where results go, which a case may not move; and what costs time or processes as it should.
_KEPT = {
    "output_dir", "dataset_dir", "bundle_root", "model_dir", "slides", "output", "map", "nifti", "work_dir", "run",
    "training", "inferring", "evaluating", "initialize", "imports", "num_workers", "num_readers", "max_epochs",
    "crops_per_slide",
}  # fmt: skip


def _place(build: Build, name: str) -> tuple[str, Any]:
    content = json.loads((_CONFIGS / name).read_text())
    found = [place for place in places(content) if place[0] not in _KEPT and place[-1] not in _KEPT]
    place = found[int(build.rng.integers(len(found)))]
    values = [v for v in bad_values(build) if v != "%models/panel.json"]
    return "#".join(place), values[int(build.rng.integers(len(values)))]


@kind("settings", 70)
def set_values(build: Build) -> Case:
    """`--set KEY=VALUE` with values that do not suit the key."""
    command = build.word("predict", "predict", "train")
    key, value = _place(build, "inference.json" if command == "predict" else "train.json")
    text = build.word(f"{key}={value if isinstance(value, str) else json.dumps(value)}", f"{key}={json.dumps(value)}")
    if build.chance(0.1):
        text = build.word(
            "=3", "a", "", "#=1", "network_def#=2", "network_def##encoder=1", "bin_um=", "=", "a=b=c", "0=1"
        )
    if command == "predict":
        out = build.out("o.h5ad")
        arguments = ["predict", str(build.slide()), str(out), "--model", str(build.base.run), "--bin-um", "55"]
        return Case(
            f"--set {text[:60]}, predict", [*arguments, "--set", text], outputs=[out], leaves=work_of("o.h5ad"),
            trusted=True, check=predicted(out),
        )  # fmt: skip
    run = build.out("run")
    arguments = ["train", str(build.base.dataset), str(run), *settings({**TINY, "max_epochs": 1}), "--set", text]
    return Case(
        f"--set {text[:60]}, train",
        arguments,
        outputs=[run],
        leaves=of_training("run"),
        trusted=True,
        check=trained(run),
    )


@kind("configs", 50)
def files(build: Build) -> Case:
    """`--config FILE` of its owner: it may run code, but not end in a traceback."""
    path = build.input("mine.json")
    key, value = _place(build, "train.json")
    run = build.out("run")
    how = build.word(
        "value", "value", "value", "cycle", "unknown", "target", "damage", "root", "encoding", "deep", "twice", "nested"
    )
    text = json.dumps({key: value})
    if how == "cycle":
        text = build.word(
            '{"learning_rate": "@max_epochs", "max_epochs": "@learning_rate"}', '{"mpp": "@mpp"}',
            '{"device": "$@device"}', '{"panel": "@train#dataset"}', '{"head": "@network_def#head"}',
        )  # fmt: skip
    elif how == "unknown":
        text = json.dumps(
            {build.word("learning_rat", "", "#", "a#b#c", "network_def#encoder#depth", "$x", "_target_"): 1}
        )
    elif how == "target":
        target = build.word(
            "nothing", "no.such.Thing", "networks.Nothing", "", "networks", "os.path", "torch.nn.Linear", "print", "a b"
        )
        place = build.word("network_def", "loss", "reader", "optimizer", "network_def#encoder", "panel")
        text = json.dumps({place: {"_target_": target}})
    elif how == "root":
        text = build.word("[]", "null", "3", '"x"', "", "{}", "[{}]")
    elif how == "deep":
        text = '{"a":' * 50_000
    elif how == "twice":
        text = '{"learning_rate": 0.1, "learning_rate": "x"}'
    elif how == "nested":
        text = json.dumps({"network_def": {"encoder": {"embed_dim": build.pick(-1, 0, 12, "x", 10**9, None)}}})
    path.write_text(text)
    if how == "damage":
        path.write_text(json.dumps({"learning_rate": 0.001, "head": "linear"}, indent=2))
        text = damage(path, build.rng)
    elif how == "encoding":
        text = build.word("utf-8-sig", "utf-16", "latin-1")
        content = json.dumps({"learning_rate": 0.001, "_meta_": "é"}, ensure_ascii=False)
        path.write_text(content, encoding=text)
    config = ["--config", str(path)]
    if build.chance(0.1):
        config += ["--config", str(build.folder / "in" / build.word("nothing.json", "", ".."))]
    tiny = settings({key: value for key, value in {**TINY, "max_epochs": 1}.items() if key not in text})
    arguments = ["train", str(build.base.dataset), str(run), *config, *tiny]
    what = f"--config {how}: {text[:60]}"
    return Case(what, arguments, outputs=[run], leaves=of_training("run"), trusted=True, check=trained(run))
