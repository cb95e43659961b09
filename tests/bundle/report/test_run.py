from __future__ import annotations

import json
import math
import shutil
from pathlib import Path

import pytest

from bundle.errors import InputError
from bundle.report.run import read_run


@pytest.fixture
def run(plain_run: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(plain_run, tmp_path / "run"))


def test_order_of_evaluations(run: Path) -> None:
    for name in ("truth", "another"):
        shutil.copy(run / "evaluation" / "test.json", run / "evaluation" / f"{name}.json")
    assert [e.name for e in read_run(run).evaluations] == ["test", "another", "truth", "validation"]


def test_genes_called_na_and_undefined_figures(run: Path) -> None:
    path = run / "evaluation" / "test.json"
    content = json.loads(path.read_text())
    content["scales"]["native"]["ceiling@M"] = None
    path.write_text(json.dumps(content))
    evaluation = read_run(run).evaluations[0]
    assert math.isnan(evaluation.main["ceiling@M"])
    assert "NA" in evaluation.column("pcc").index
    assert evaluation.column("no such figure").isna().all()


def test_what_is_missing_is_empty(run: Path) -> None:
    for name in ("models/panel.json", "configs/train.json", "metrics.csv", "evaluation/test_genes.csv"):
        (run / name).unlink()
    content = read_run(run)
    assert content.panel == content.config == {}
    assert not len(content.metrics)
    assert not len(content.evaluations[0].column("pcc"))


def test_sentences(run: Path) -> None:
    with pytest.raises(InputError, match="No run at"):
        read_run(run / "nowhere")
    (run / "configs" / "train.json").write_text("{")
    with pytest.raises(InputError, match=r"train\.json is not valid JSON"):
        read_run(run)
    shutil.rmtree(run / "evaluation")
    with pytest.raises(InputError, match=r"pixnet evaluate .*run.* first"):
        read_run(run)
