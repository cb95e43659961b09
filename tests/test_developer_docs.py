"""The examples of docs/developer work as written: in a user's own folder, by the commands that the pages give."""

from __future__ import annotations

import importlib
import json
import re
import runpy
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import anndata as ad
import numpy as np
import pandas as pd
import pytest
import torch

from bundle import readers, workflows
from bundle.cli.main import main
from bundle.importing import prepare
from bundle.readers import registry

PAGES = Path(__file__).parents[1] / "docs" / "developer"
_BLOCK = re.compile(r"^```\w+ file=(\S+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def write_examples(folder: Path) -> list[str]:
    """Every code block that names a file, as that file; returns the names."""
    blocks = [found for page in sorted(PAGES.glob("*.md")) for found in _BLOCK.findall(page.read_text())]
    for name, text in blocks:
        (folder / name).write_text(text)
    return [name for name, _ in blocks]


@pytest.fixture
def folder(tmp_path, monkeypatch) -> Iterator[Path]:
    """A user's own folder with the pages' examples, in which commands run; its modules are forgotten afterwards."""
    names = write_examples(tmp_path)
    assert len(names) == len(set(names))
    monkeypatch.chdir(tmp_path)
    yield tmp_path
    for name in names:
        sys.modules.pop(Path(name).stem, None)


@pytest.fixture
def data(folder, phantom, monkeypatch) -> Path:
    """The phantom as Slide-seq's tables, imported by the example of the reader's page."""
    samples = []
    for split, records in json.loads((phantom / "dataset.json").read_text()).items():
        for record in _records(records):
            name = Path(record["image"]).stem
            shutil.copy(phantom / record["image"], folder / f"{name}.tif")
            spots = ad.read_h5ad(phantom / record["label"][0])
            (folder / name).mkdir()
            beads = pd.DataFrame(spots.obsm["spatial"] * 1.0, spots.obs_names, ["x", "y"])  # 1 µm per pixel
            beads.to_csv(folder / name / f"{name}_bead_locations.csv", index_label="barcode")
            counts = pd.DataFrame(spots.X.toarray().T, spots.var_names, spots.obs_names)
            counts.to_csv(folder / name / f"{name}_expression.csv.gz")
            samples.append({"path": name, "image": f"{name}.tif", "mpp": 1.0, "patient": name, "split": split})
    pd.DataFrame(samples).to_csv("samples.csv", index=False)
    with monkeypatch.context() as patch:
        patch.setattr(registry, "READERS", readers.READERS.copy())
        patch.setattr(registry, "_added", {})
        patch.syspath_prepend(str(folder))
        slide_seq = importlib.import_module("slide_seq")
        patch.setattr(slide_seq, "BEAD_UM", 55.0)  # the phantom's spots
        readers.register("slide-seq", slide_seq)
        prepare("samples.csv", "data")
    return folder / "data"


def _records(split: object) -> list[dict]:
    return [record for record in split if isinstance(record, dict)] if isinstance(split, list) else []


def _tiny(tiny: dict, *but: str) -> None:
    Path("tiny.json").write_text(json.dumps({key: value for key, value in tiny.items() if key not in but}))


def test_reader_encoder_loss_transform_and_metric_train_together(data, tiny, capsys):
    names = ("my_encoder", "my_loss", "my_transform", "my_metric")
    options = [part for name in ("tiny", *names) for part in ("--config", f"{name}.json")]
    _tiny(tiny, "network_def#encoder", "network_def#decoder_channels")
    assert main(["train", str(data), "run", *options]) == 0, capsys.readouterr().err
    assert str(data.parent) not in sys.path  # importable while a command runs, and no longer
    assert -1 <= pd.read_csv("run/metrics.csv")["val_Spearman@M"].iloc[-1] <= 1
    train = json.loads(Path("run/configs/train.json").read_text())
    assert train["train"]["preprocessing"]["transforms"][-1]["_target_"] == "my_transform.RandGreyd"
    assert train["network_def"]["encoder"]["_target_"] == "my_encoder.PatchEncoder"
    assert train["loss"]["_target_"] == "my_loss.DepthWeightedLoss"
    slide = "P3.tif"
    predict = ["predict", slide, "out.h5ad", "--model", "run/", "--mpp", "1", "--bin-um", "16"]
    assert main(predict) == 2
    assert "--trust" in capsys.readouterr().err
    assert main([*predict, "--trust"]) == 0
    assert np.isfinite(ad.read_h5ad("out.h5ad").X).all()
    assert main(["evaluate", "run", "--trust"]) == 0


def test_a_plain_pytorch_loss_trains(folder, phantom, tiny):
    _tiny(tiny)
    assert main(["train", str(phantom), "run", "--config", "tiny.json", "--config", "plain_loss.json"]) == 0
    assert np.isfinite(pd.read_csv("run/metrics.csv")["loss"]).all()


def test_the_encoders_tiles_agree(folder, monkeypatch):
    monkeypatch.syspath_prepend(str(folder))
    torch.manual_seed(0)
    runpy.run_path("check_tiles.py")


def test_the_loss_takes_every_batch(folder):
    from networks import UnitExpression

    loss = runpy.run_path("my_loss.py")["DepthWeightedLoss"](std=[1.0, 2.0])
    for n in (0, 3):
        predicted = torch.randn(n, 2, requires_grad=True)
        target = torch.randn(n, 2)
        target[:1, 0] = torch.nan
        value = loss(UnitExpression(predicted, None), {"target": target, "total": torch.rand(n) + 1})
        value.backward()
        assert torch.isfinite(value)
        assert torch.isfinite(predicted.grad).all()
    assert predicted.grad[0, 0] == 0


def test_the_transform_keeps_what_it_does_not_change(folder):
    from monai.data import MetaTensor

    grey = runpy.run_path("my_transform.py")["RandGreyd"]("image", prob=1.0)
    sample = {"image": MetaTensor(torch.rand(3, 4, 5), meta={"mpp": 2.0}), "label": torch.ones(1, 4, 5)}
    done = grey(sample)
    assert done["image"].shape == (3, 4, 5)
    assert done["image"].meta["mpp"] == 2.0
    assert torch.equal(done["image"][0], done["image"][2])
    assert done["label"] is sample["label"]


def test_the_three_steps_give_what_a_prediction_writes(folder, phantom, tiny_run):
    record = json.loads((phantom / "dataset.json").read_text())["test"][0]
    for source, name in ((phantom / record["image"], "slide.tif"), (phantom / record["label"][0], "spots.h5ad")):
        (folder / name).symlink_to(source)
    (folder / "run").symlink_to(tiny_run)
    found = runpy.run_path("three_steps.py")
    workflows.predict("slide.tif", "spots_predicted.h5ad", "run", {"units": "spots.h5ad", "all_genes": True})
    written = ad.read_h5ad("spots_predicted.h5ad")
    assert list(written.var_names) == found["dense"].genes
    inside = np.isfinite(found["features"]).all(1)  # spots on glass may lie off the map
    assert inside.mean() > 0.5
    np.testing.assert_allclose(found["expression"].clipped[inside], written.X[inside], atol=1e-2)
