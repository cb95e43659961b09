from __future__ import annotations

import fcntl
import json
import shutil

import pytest
import torch

from benchmarks.processes import largest_difference
from bundle import InputError
from bundle.data.panel import load_panel
from bundle.integrations.monai_label.models import current_run, fine_tune
from bundle.integrations.monai_label.studies import studies_with_units

SETTINGS = {"max_epochs": 1}


def _weights(run) -> dict[str, torch.Tensor]:
    return torch.load(run / "models" / "model.pt", weights_only=True)


def test_training_goes_on_from_the_weights_that_are_served(served, studies, tiny):
    assert current_run(served) == served
    first = fine_tune(served, studies_with_units(studies), {**SETTINGS, "learning_rate": 1e-9})
    before, after = _weights(served), _weights(first)
    learned = [key for key in before if "running_" not in key and "num_batches" not in key]
    assert largest_difference(*({key: state[key] for key in learned} for state in (before, after))) < 1e-6
    assert current_run(served) == first

    second = fine_tune(served, studies_with_units(studies), {**SETTINGS, "learning_rate": 1e-2})
    assert current_run(served) == second
    assert any(not torch.allclose(_weights(second)[key], after[key], atol=1e-4) for key in learned)
    panels = [load_panel(run / "models" / "panel.json") for run in (served, first, second)]
    assert panels[0].genes == panels[1].genes == panels[2].genes
    assert panels[0].mean == panels[2].mean
    stains = [panel.extra["stain"] for panel in panels]
    assert len(stains[0]) == 1
    assert len(stains[2]) == 2  # of all slides that either training saw, each once
    assert stains[1] == stains[2]
    assert {"section": "P2", "patient": "unknown"} in panels[1].training
    assert panels[1].training == panels[2].training
    assert all(slide in panels[1].training for slide in panels[0].training)
    model = [json.loads((run / "configs" / "model.json").read_text()) for run in (served, second)]
    assert model[0]["network_def"] == model[1]["network_def"]
    trained = [json.loads((run / "configs" / "train.json").read_text()) for run in (served, second)]
    for key in ("crop_px", "crops_per_slide"):
        assert trained[0][key] == trained[1][key] == tiny[key]

    (second / "models" / "model.pt").unlink()  # a training that was stopped
    assert current_run(served) == first
    again = fine_tune(served, studies_with_units(studies), SETTINGS)
    assert again == second
    assert not [p for p in (again / "models").iterdir() if p.name.startswith(".")]


def test_a_second_training_does_not_touch_the_first(tiny_run, studies, tmp_path):
    run = shutil.copytree(tiny_run, tmp_path / "run")
    under_way = run / "tuned" / "0001" / "checkpoints"
    under_way.mkdir(parents=True)
    (under_way.parent / "dataset.json").write_text('{"split_by": "section"}')  # the first that a training writes
    with (run / "tuned" / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(InputError, match="under way"):
            fine_tune(run, studies_with_units(studies), SETTINGS)
    assert under_way.is_dir()
    assert fine_tune(run, studies_with_units(studies), SETTINGS) == run / "tuned" / "0001"  # the lock's end


def test_units_that_lack_most_genes_of_the_model_are_refused(tiny_run, studies, tmp_path):
    run = shutil.copytree(tiny_run, tmp_path / "run")
    panel = json.loads((run / "models" / "panel.json").read_text())
    panel["genes"][:-1] = [f"NEVER_MEASURED{i}" for i in range(len(panel["genes"]) - 1)]
    (run / "models" / "panel.json").write_text(json.dumps(panel))
    with pytest.raises(InputError, match=r"lacks 29 of the 30 genes .*NEVER_MEASURED0"):
        fine_tune(run, studies_with_units(studies), SETTINGS)
    assert current_run(run) == run
