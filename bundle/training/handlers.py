"""Ignite handlers of the workflow: seeds, the run folder, metrics.csv and the weights to keep."""

from __future__ import annotations

import csv
import inspect
import logging
import random
import re
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import torch
from ignite.engine import Engine, Events
from monai.bundle import ConfigParser, ConfigWorkflow

from ..config.literals import quoted, unquoted
from ..config.trust import BACKBONE_OF_RUN, BACKBONE_OF_START, MODEL_KEYS, TRAINING_KEYS, refuse_links, what_runs
from ..data.crops import CropDataset
from ..data.panel import GenePanel, load_panel
from ..errors import InputError
from ..files.atomic import alone_at, replacing, write_json
from ..files.ownership import claim_run
from ..files.reading import reading

__all__ = ["BestModel", "EpochSeed", "MetricsCsv", "RunFolder", "SaveCheckpoint", "as_written"]


logger = logging.getLogger(__name__)


class SaveCheckpoint:
    """Write everything a resumed run needs to one file after each epoch, in one move.

    (MONAI's `CheckpointSaver` writes onto the final name, so that a run killed while writing has lost its checkpoint.)

    Args:
        path: the file; `find` tells whether it is there.
        objects: name to what has a state dict; read back by MONAI's `CheckpointLoader`.
    """

    def __init__(self, path: str, objects: Mapping[str, Any]) -> None:
        self.path = Path(path)
        self.objects = dict(objects)

    def attach(self, engine: Engine) -> None:
        """Write at the end of each epoch; attach it last."""
        engine.add_event_handler(Events.EPOCH_COMPLETED, self)

    def __call__(self, engine: Engine) -> None:
        """Write the states."""
        states = {name: getattr(item, "module", item).state_dict() for name, item in self.objects.items()}
        with replacing(self.path) as temporary:
            torch.save(states, temporary)

    @staticmethod
    def find(path: str) -> str | None:
        """`path` if a checkpoint is there, else None."""
        return path if Path(path).is_file() else None


class EpochSeed:
    """Start every epoch from (seed, epoch), so that a resumed run draws what an uninterrupted one would.

    Args:
        dataset: told the epoch.
        seed: the run's.
    """

    def __init__(self, dataset: CropDataset, seed: int) -> None:
        self.dataset = dataset
        self.seed = seed

    def attach(self, engine: Engine) -> None:
        """Seed at the start of each epoch."""
        engine.add_event_handler(Events.EPOCH_STARTED, self)

    def __call__(self, engine: Engine) -> None:
        """Seed Python, NumPy, torch and the data set."""
        self.dataset.set_epoch(engine.state.epoch)
        seed = int(np.random.SeedSequence([self.seed, engine.state.epoch]).generate_state(1)[0])
        random.seed(seed)
        np.random.seed(seed)
        torch.manual_seed(seed)


class BestModel:
    """Keep the weights of the best validation as a flat state dict; without validation, the last ones.

    Its state (the best figure so far) belongs into the checkpoint, so that a resumed run goes on comparing.

    Args:
        network: whose weights.
        path: `models/model.pt`.
        trainer: at whose end the weights are written where no validation has run.
        evaluator: the validation's engine, whose key metric is compared at the end of each of its runs.
        writers: called with the evaluator when it improves (`EvaluationWriter`).
        write: whether this process writes files (rank 0); every rank keeps the best figure.
    """

    def __init__(
        self,
        network: torch.nn.Module,
        path: str,
        trainer: Engine,
        evaluator: Engine,
        writers: Sequence[Callable[[Engine], None]] = (),
        write: bool = True,
    ) -> None:
        self.network = network
        self.path = Path(path)
        self.writers = list(writers)
        self.write = write
        self.best: dict[str, float] = {}
        trainer.add_event_handler(Events.COMPLETED, self._finish)
        evaluator.add_event_handler(Events.COMPLETED, self)

    def __call__(self, engine: Engine) -> None:
        """Compare, and save if better."""
        name = engine.state.key_metric_name  # type: ignore[attr-defined]
        value = float(engine.state.metrics[name])
        if value > self.best.get(name, -np.inf):
            self.best[name] = value
            self._save()
            for writer in self.writers if self.write else ():
                writer(engine)

    def _finish(self, engine: Engine) -> None:
        if not self.best:
            self._save()

    def _save(self) -> None:
        if not self.write:
            return
        network = getattr(self.network, "module", self.network)
        with replacing(self.path) as temporary:
            torch.save(network.state_dict(), temporary)

    def state_dict(self) -> dict[str, float]:
        """The best figure so far."""
        return dict(self.best)

    def load_state_dict(self, state: Mapping[str, float]) -> None:
        """Go on from a checkpoint."""
        self.best = dict(state)


class MetricsCsv:
    """One row an epoch in `metrics.csv`, and one line in the log: loss, learning rate and, where one ran, validation.

    Args:
        path: the file; rows of epochs that a resumed run repeats are replaced.
        optimizer: for the learning rate.
        evaluator: the validation's engine, attached before this handler.
    """

    def __init__(self, path: str, optimizer: torch.optim.Optimizer, evaluator: Engine | None = None) -> None:
        self.path = Path(path)
        self.optimizer = optimizer
        self.evaluator = evaluator
        self._losses: list[float] = []
        self._done = 0
        self._started = 0.0

    def attach(self, engine: Engine) -> None:
        """Collect the loss of each iteration and write at the end of each epoch."""
        engine.add_event_handler(Events.STARTED, self._start)
        engine.add_event_handler(Events.COMPLETED, self._finish)
        engine.add_event_handler(Events.ITERATION_COMPLETED, self._collect)
        engine.add_event_handler(Events.EPOCH_COMPLETED, self)

    def _start(self, engine: Engine) -> None:
        self._done, self._started = 0, time.monotonic()

    def _finish(self, engine: Engine) -> None:
        if not self._done:
            logger.info("All %d epochs were done already.", engine.state.epoch)

    def _collect(self, engine: Engine) -> None:
        output: Any = engine.state.output
        self._losses.append((output[0] if isinstance(output, list) else output)["loss"].item())

    def __call__(self, engine: Engine) -> None:
        """Write the epoch's row."""
        epoch = engine.state.epoch
        row: dict[str, Any] = {
            "epoch": epoch,
            "loss": float(np.mean(self._losses)),
            "learning_rate": self.optimizer.param_groups[-1]["lr"],  # a pretrained encoder's own rate comes first
        }
        self._losses = []
        if self.evaluator is not None and self.evaluator.state.metrics and self.evaluator.state.epoch == epoch:
            row |= {f"val_{key}": value for key, value in self.evaluator.state.metrics.items()}
        rows: list[dict] = []
        if self.path.is_file():
            with (
                reading(self.path, "cannot be read as the figures of each epoch", "Move it away to start it anew."),
                self.path.open() as file,
            ):
                rows = [r for r in csv.DictReader(file) if int(r["epoch"]) < epoch]
        rows.append(row)
        self._done += 1
        last = engine.state.max_epochs or epoch
        left = (time.monotonic() - self._started) / self._done * (last - epoch)
        validated = f", validation PCC@M {row['val_PCC@M']:.3f}" if "val_PCC@M" in row else ""
        logger.info("epoch %d of %d: loss %.4f%s, %.1f min left", epoch, last, row["loss"], validated, left / 60)
        fields = list(dict.fromkeys(key for r in rows for key in r))
        with replacing(self.path) as temporary, temporary.open("w", newline="") as file:
            writer = csv.DictWriter(file, fields)
            writer.writeheader()
            writer.writerows(rows)


class RunFolder:
    """Make a run folder that explains itself: the merged configuration, the network's own, and the panel.

    Args:
        output_dir: the run folder.
        panel: written as `models/panel.json`.
        about: what else a prediction must know (working mpp, head, stain).
        resume_from: the checkpoint that the run goes on from, if any.
    """

    def __init__(
        self, output_dir: str, panel: GenePanel, about: Mapping[str, Any], resume_from: str | None = None
    ) -> None:
        self.folder = Path(output_dir)
        self.panel = panel
        self.about = dict(about)
        self.resume_from = resume_from
        self.config = _enclosing_config()
        self._held = ExitStack()
        self._backbone: Path | None = None

    def attach(self, engine: Engine) -> None:
        """Write when training starts."""
        engine.add_event_handler(Events.STARTED, self)
        engine.add_event_handler(Events.COMPLETED, self._release)
        engine.add_event_handler(Events.EXCEPTION_RAISED, self._release)

    def _release(self, engine: Engine, error: BaseException | None = None) -> None:
        self._held.close()
        if error is not None:  # whoever handles an engine's exception raises it again
            raise error

    def __call__(self, engine: Engine) -> None:
        """Write panel and configuration.

        Raises:
            InputError: if the run to go on with was trained on other slides or genes, another command is training into
                the folder, or it holds what PixNet did not write.
        """
        refuse_links(self.folder)
        claim_run(self.folder)
        self._held.enter_context(alone_at(self.folder / "run", what=str(self.folder)))
        path = self.folder / "models" / "panel.json"
        if self.resume_from is not None and path.is_file():
            earlier = load_panel(path)
            if (earlier.genes, earlier.training) != (self.panel.genes, self.panel.training):
                raise InputError(
                    f"{self.folder} holds a run on other slides or genes. Go on with its own data set, or give another "
                    "output_dir to start anew."
                )
        self.panel.save(path, **self.about)
        if self.config is not None:
            interval, epochs = self.config.get("val_interval"), engine.state.max_epochs
            if isinstance(interval, int) and epochs and interval > epochs:
                logger.warning(
                    "val_interval=%d is more than the %d epochs: nothing is validated, and predictions cannot leave "
                    "out genes that are predicted badly. Set val_interval=%d.",
                    *(interval, epochs, epochs),
                )
            data = str(Path(unquoted(self.config["dataset_dir"])).resolve())  # it is looked for from other folders too
            write_json(self.folder / "configs" / "train.json", {**self.config, "dataset_dir": quoted(data)})
            for name, keys, place in (
                ("model", MODEL_KEYS, BACKBONE_OF_RUN),
                ("recipe", MODEL_KEYS + TRAINING_KEYS, BACKBONE_OF_START),
            ):
                kept = {key: self.config[key] for key in keys if key in self.config}
                kept["network_def"] = self._own(kept["network_def"], place)
                write_json(self.folder / "configs" / f"{name}.json", kept)
                if name == "model" and (found := what_runs(kept, self.folder)):
                    logger.warning("Commands that use this model need --trust, since its %s would %s.", *found)

    def _own(self, config: Any, place: str) -> Any:
        """A network's configuration without the files that its training started from.

        `model.pt` holds all weights; of a backbone's folder, `config.json` is copied into the run.

        Args:
            config: `network_def`, or a part of it.
            place: what says where the copy is.
        """
        if not isinstance(config, dict):
            return config
        nothing = {"weights": None, "pretrained": False}
        own = {key: nothing.get(key, self._own(value, place)) for key, value in config.items()}
        source = self._described_by(config)
        if source is not None and self._backbone in (None, source):
            self._backbone = source
            content = source.read_bytes()
            with replacing(self.folder / "models" / "backbone" / "config.json") as temporary:
                temporary.write_bytes(content)
            own |= {"folder": place, "pretrained": False}
        return own

    def _described_by(self, config: Mapping[str, Any]) -> Path | None:
        """The `config.json` of a backbone."""
        folder = unquoted(config.get("folder"))
        if config.get("_target_") != "networks.BackboneEncoder" or not isinstance(folder, str):
            return None
        if folder == BACKBONE_OF_START:
            folder = f"{unquoted((self.config or {}).get('start_from'))}/models/backbone"
        path = Path(folder) / "config.json"
        return path if path.is_file() else None


def as_written(config: Any) -> Any:
    """A configuration as people write it: `@train#trainer`, which parsing turns into `@train::trainer`, and null."""
    if isinstance(config, dict):
        return {key: as_written(value) for key, value in config.items()}
    if isinstance(config, list):
        return [as_written(value) for value in config]
    if config == "$None":  # what `commands.run_config` makes of null
        return None
    if isinstance(config, str):
        return re.sub(r"[@%]\w+(::\w+)+", lambda match: match[0].replace("::", "#"), config)
    return config


def _enclosing_config() -> dict[str, Any] | None:
    """The merged configuration that is being instantiated, overrides included.

    `monai.bundle run` gives components no handle on the configuration that they are part of, so it is taken from
    the parser further up the stack. None outside of a bundle workflow.
    """
    frame = inspect.currentframe()
    while frame is not None:
        owner = frame.f_locals.get("self")
        if isinstance(owner, ConfigWorkflow):
            owner = owner.parser
        if isinstance(owner, ConfigParser):
            return as_written({k: v for k, v in owner.get().items() if k != "_meta_"})
        frame = frame.f_back
    return None
