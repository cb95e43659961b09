"""Write the configuration and the panel of a run into its folder, so that the folder explains itself."""

from __future__ import annotations

import inspect
import logging
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from ignite.engine import Engine, Events
from monai.bundle import ConfigParser, ConfigWorkflow

from ..config.defaults import with_defaults
from ..config.literals import escape, unescape
from ..config.metadata import model_metadata
from ..config.trust import BACKBONE_OF_RUN, BACKBONE_OF_START, MODEL_KEYS, TRAINING_KEYS, find_untrusted, refuse_links
from ..config.written import as_written
from ..data.panel import GenePanel, load_panel
from ..errors import InputError
from ..files.atomic import replacing, write_json
from ..files.lock import output_lock
from ..files.ownership import claim_run

__all__ = ["RunFolder"]

logger = logging.getLogger(__name__)


class RunFolder:
    """Ignite handler: write a run's configuration and panel into its folder when training starts.

    `configs/train.json` is the merged configuration. `configs/model.json` describes the network for evaluation and
    prediction, `configs/recipe.json` also the training, for fine-tuning, `configs/metadata.json` its inputs and
    outputs. `models/panel.json` holds the genes.

    Args:
        output_dir: the run folder.
        panel: the genes, and what else a prediction must know of the training units.
        about: further entries of `panel.json`: the working mpp, the head, the stain.
        resume_from: the checkpoint from which the run resumes, if any.
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
        if error is not None:  # Ignite leaves raising to the handlers of exceptions
            raise error

    def __call__(self, engine: Engine) -> None:
        """Write panel and configuration.

        Raises:
            InputError: if the run to resume was trained on other slides or genes, another command is training into the
                folder, or the folder holds files that PixNet did not write.
        """
        refuse_links(self.folder)
        claim_run(self.folder)
        self._held.enter_context(output_lock(self.folder / "run", what=str(self.folder), may_hold_it=True))
        path = self.folder / "models" / "panel.json"
        if self.resume_from is not None and path.is_file():
            earlier = load_panel(path)
            if (earlier.genes, earlier.training) != (self.panel.genes, self.panel.training):
                raise InputError(
                    f"{self.folder} holds a run on other slides or genes. Resume it with its own data set, or give "
                    "another output_dir to start anew."
                )
        self.panel.save(path, **self.about)
        network = getattr(engine, "network", None)
        if network is not None:
            content = model_metadata(getattr(network, "module", network), self.panel.genes)
            write_json(self.folder / "configs" / "metadata.json", content)
        if self.config is not None:
            interval, epochs = self.config.get("val_interval"), engine.state.max_epochs
            if isinstance(interval, int) and epochs and interval > epochs:
                logger.warning(
                    "val_interval=%d is more than the %d epochs, so nothing is validated and predictions cannot leave "
                    "out badly predicted genes. Set val_interval=%d.",
                    *(interval, epochs, epochs),
                )
            data = str(Path(unescape(self.config["dataset_dir"])).resolve())  # other commands run in other folders
            write_json(self.folder / "configs" / "train.json", {**self.config, "dataset_dir": escape(data)})
            for name, keys, place in (
                ("model", MODEL_KEYS, BACKBONE_OF_RUN),
                ("recipe", MODEL_KEYS + TRAINING_KEYS, BACKBONE_OF_START),
            ):
                kept = {key: self.config[key] for key in keys if key in self.config}
                kept["network_def"] = self._own(kept["network_def"], place)
                write_json(self.folder / "configs" / f"{name}.json", kept)
                if name == "model" and (found := find_untrusted(kept, self.folder)):
                    logger.warning("Commands that use this model need --trust, since its %s would %s.", *found)

    def _own(self, config: Any, place: str) -> Any:
        """A network's configuration with the defaults of its classes and without the files that training started from.

        With the defaults written out, the folder stays valid if a class changes them. `model.pt` holds all weights; of
        a backbone's folder, only `config.json` is needed and copied into the run.

        Args:
            config: `network_def`, or a part of it.
            place: the expression for the copy's folder.
        """
        if not isinstance(config, dict):
            return config
        config = with_defaults(config)
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
        """The path of a backbone's `config.json`, if `config` is one and the file exists."""
        folder = unescape(config.get("folder"))
        if config.get("_target_") != "networks.BackboneEncoder" or not isinstance(folder, str):
            return None
        if folder == BACKBONE_OF_START:
            folder = f"{unescape((self.config or {}).get('start_from'))}/models/backbone"
        path = Path(folder) / "config.json"
        return path if path.is_file() else None


def _enclosing_config() -> dict[str, Any] | None:
    """The merged configuration that MONAI is instantiating, overrides included; None outside of a bundle workflow.

    MONAI gives components no access to the configuration that they are part of, so this function looks for the parser
    in the calls further up the stack.
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
