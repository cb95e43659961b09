from __future__ import annotations

import csv
import random
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from ignite.engine import Engine, Events
from monai.engines import Trainer

from bundle.files.atomic import replacing, write_json
from bundle.training.best_model import BestModel
from bundle.training.checkpoint import SaveCheckpoint
from bundle.training.epoch_seed import EpochSeed
from bundle.training.metrics_csv import MetricsCsv
from bundle.training.run_folder import RunFolder


class _Trainer(Trainer):
    """A trainer whose steps do nothing."""

    def __init__(self) -> None:
        Engine.__init__(self, lambda engine, batch: None)

    def run(self) -> None:  # type: ignore[override]
        """Run one epoch of one step."""
        Engine.run(self, [0], max_epochs=1)


def _validate(values: list[float]) -> tuple[Engine, list]:
    """An evaluator whose runs score `values`, and where it was called."""
    evaluator = Engine(lambda engine, batch: None)
    evaluator.state.key_metric_name = "PCC@M"
    left = list(values)

    @evaluator.on(Events.EPOCH_COMPLETED)
    def _(engine):
        engine.state.metrics["PCC@M"] = left.pop(0)

    return evaluator, left


@pytest.mark.parametrize(("values", "kept"), [([0.1, 0.3, 0.2], 1), ([-1.0, -1.0, 0.0], 2), ([0.5, 0.4, 0.4], 0)])
def test_the_best_weights_are_kept(tmp_path, values, kept):
    network = torch.nn.Linear(1, 1)
    trainer, (evaluator, _) = _Trainer(), _validate(values)
    written = []
    best = BestModel(network, str(tmp_path / "model.pt"), lambda e: written.append(1))
    for engine in (trainer, evaluator):
        best.attach(engine)
    for i in range(len(values)):
        torch.nn.init.constant_(network.weight, i)
        evaluator.run([0], max_epochs=1)
        evaluator.state.max_epochs = None
    trainer.run()
    state = torch.load(tmp_path / "model.pt", weights_only=True)
    assert state["weight"].item() == kept
    assert best.state_dict() == {"PCC@M": max(values)}
    assert len(written) == sum(v > max(values[:i], default=-np.inf) for i, v in enumerate(values))


def test_without_validation_the_last_weights_are_kept(tmp_path):
    network = torch.nn.Linear(1, 1)
    trainer = _Trainer()
    BestModel(network, str(tmp_path / "model.pt")).attach(trainer)
    trainer.run()
    assert set(torch.load(tmp_path / "model.pt", weights_only=True)) == {"weight", "bias"}


def test_a_rank_that_does_not_write_still_compares(tmp_path):
    evaluator, _ = _validate([0.4])
    best = BestModel(torch.nn.Linear(1, 1), str(tmp_path / "model.pt"), write=False)
    best.attach(evaluator)
    evaluator.run([0], max_epochs=1)
    assert best.state_dict() == {"PCC@M": 0.4}
    assert not (tmp_path / "model.pt").exists()


def test_metrics_of_repeated_epochs_are_replaced(tmp_path):
    optimizer = torch.optim.SGD(torch.nn.Linear(1, 1).parameters(), lr=0.1)
    for start, stop in ((0, 3), (1, 4)):  # the second run resumes after epoch 1
        trainer = Engine(lambda engine, batch: {"loss": torch.tensor(float(engine.state.epoch))})
        MetricsCsv(str(tmp_path / "metrics.csv"), optimizer).attach(trainer)
        trainer.load_state_dict({"epoch": start, "max_epochs": stop, "epoch_length": 2}) if start else None
        trainer.run([0, 1], max_epochs=stop)
    with (tmp_path / "metrics.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [int(r["epoch"]) for r in rows] == [1, 2, 3, 4]
    assert [float(r["loss"]) for r in rows] == [1, 2, 3, 4]


def test_an_epoch_starts_from_seed_and_epoch_alone():
    class Dataset:
        epoch = 0

        def set_epoch(self, epoch):
            self.epoch = epoch

    def draws(first: int, seed: int = 7) -> dict[int, tuple[float, ...]]:
        found, dataset = {}, Dataset()

        def step(engine, batch) -> None:
            assert dataset.epoch == engine.state.epoch
            found[engine.state.epoch] = (torch.rand(1).item(), np.random.random(), random.random())

        trainer = Engine(step)
        EpochSeed(dataset, seed).attach(trainer)  # type: ignore[arg-type]
        if first:
            trainer.load_state_dict({"epoch": first, "max_epochs": 3, "epoch_length": 1})
        trainer.run([0], max_epochs=3)
        return found

    whole, resumed = draws(0), draws(2)
    assert resumed[3] == whole[3]
    for drawn in zip(*whole.values(), *draws(0, seed=8).values(), strict=True):
        assert len(set(drawn)) == 6


def test_files_appear_whole_or_not_at_all(tmp_path):
    path = tmp_path / "a" / "x.json"
    write_json(path, {"nan": float("nan"), "n": 1})
    assert path.read_text().count("null") == 1

    def interrupted() -> None:
        with replacing(path) as temporary:
            temporary.write_text("half")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        interrupted()
    assert '"n": 1' in path.read_text()
    assert [p.name for p in path.parent.iterdir()] == ["x.json"]


def test_a_checkpoint_is_read_back_by_monais_loader(tmp_path):
    from monai.handlers import CheckpointLoader

    path = str(tmp_path / "last.pt")
    assert SaveCheckpoint.find(path) is None
    network = torch.nn.Linear(1, 1)
    trainer = Engine(lambda engine, batch: torch.nn.init.constant_(network.weight, engine.state.epoch))
    SaveCheckpoint(path, {"network": network}).attach(trainer)
    trainer.run([0], max_epochs=2)
    other, resumed = torch.nn.Linear(1, 1), Engine(lambda engine, batch: None)
    CheckpointLoader(SaveCheckpoint.find(path), {"network": other, "trainer": resumed}).attach(resumed)
    resumed.run([0], max_epochs=2)
    assert other.weight.item() == 2
    assert resumed.state.epoch == 2


@pytest.mark.parametrize(("interval", "expected"), [(4, True), (2, False), ("$min(4, @max_epochs)", False)])
def test_a_training_too_short_to_be_validated_says_so(tmp_path, caplog, interval, expected: bool):
    folder = RunFolder(str(tmp_path), SimpleNamespace(save=lambda *_, **__: None), {})
    folder.config = {"val_interval": interval, "dataset_dir": "data", "network_def": {}}
    folder(SimpleNamespace(state=SimpleNamespace(max_epochs=2)))
    assert ("nothing is validated" in caplog.text) == expected
    assert (tmp_path / "configs" / "model.json").is_file()
