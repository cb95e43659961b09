from __future__ import annotations

import json
import re
import sqlite3
from pathlib import Path

import pytest
from monai.handlers import MLFlowHandler

from bundle import workflows
from bundle.training.tracking import MLFlowTracking

DOCS = Path(__file__).parents[3] / "docs"


def test_names_are_ones_that_mlflow_takes(monkeypatch):
    logged = {}
    monkeypatch.setattr(MLFlowHandler, "_log_metrics", lambda self, metrics, step=None: logged.update({step: metrics}))
    MLFlowTracking._log_metrics(object.__new__(MLFlowTracking), {"PCC@M": 0.3, "PCC@M_400": 0.4, "MSE": 1.0}, step=5)
    assert logged == {5: {"PCC_at_M": 0.3, "PCC_at_M_400": 0.4, "MSE": 1.0}}
    # what MLflow's own check allows
    assert all(re.fullmatch(r"[\w\-. :/]+", name) for name in logged[5])


def test_the_documented_override_writes_losses_and_scores(phantom, tiny_run, tmp_path):
    pytest.importorskip("mlflow", reason="mlflow is not installed")
    override = tmp_path / "mlflow.json"
    override.write_text(
        re.search(r"```json\n(.*?)```", (DOCS / "integrations" / "mlflow.md").read_text(), re.DOTALL)[1]
    )
    tiny = json.loads((tiny_run / "configs" / "train.json").read_text())
    settings = {key: tiny[key] for key in ("mpp", "crop_px", "crops_per_slide", "val_interval", "min_total")}
    settings |= {"network_def": tiny["network_def"], "max_epochs": 2}
    workflows.train(phantom, tmp_path / "run", [override], settings)
    with sqlite3.connect(tmp_path / "run" / "mlruns.db") as database:
        rows = database.execute("select key, step, value from metrics").fetchall()
        states = {status for (status,) in database.execute("select status from runs")}
    assert sorted(step for key, step, _ in rows if key == "loss") == [1, 2]
    assert sorted(step for key, step, _ in rows if key == "PCC_at_M") == [1, 2]
    assert "FINISHED" in states
