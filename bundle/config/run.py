"""Run a merged configuration with `monai.bundle.run`."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ..errors import user_message
from .config_file import ConfigFile, read_config
from .literals import Code, as_code
from .merge import merge_config
from .problems import config_errors
from .root import bundle_root, importable_root
from .trust import code_in_current_folder, is_of_a_run

__all__ = ["run_config"]


def run_config(
    run_id: str, files: Sequence[str | Path | ConfigFile], overrides: Mapping[str, Any], trust: bool = False
) -> None:
    """Run a configuration with `monai.bundle.run`.

    Classes that the user's own configuration names are also looked for in the current folder.

    Args:
        run_id: `training`, `evaluating` or `inferring`.
        files: configuration files, later ones merged over earlier ones.
        overrides: keys such as `train#trainer#max_epochs` and their values. Text is data, unless it is `Code`.
        trust: whether a run's configuration may name such classes too.

    Raises:
        InputError: if a file or a key does not exist, a value does not suit its key, or the run refuses its input.
    """
    import monai.bundle
    from monai.apps.utils import get_logger

    root = str(importable_root())
    read = [read_config(file) for file in files]
    config = merge_config(read, {"bundle_root": root, **overrides})
    get_logger("monai.handlers.StatsHandler").addFilter(_without_traceback)
    loggers = [get_logger(f"monai.bundle.{module}") for module in ("scripts", "workflows")]
    try:
        for monai_logger in loggers:  # which log their arguments
            monai_logger.addFilter(_problems_alone)
        own = _own_parts(read, overrides)
        with code_in_current_folder(trust or bool(own)), config_errors(own), warnings.catch_warnings():
            warnings.filterwarnings("ignore", "parsing config_file", UserWarning)  # the command line's help says it
            monai.bundle.run(
                run_id=run_id,
                config_file=str(read[0].path),
                meta_file=f"{root}/configs/metadata.json",
                logging_file=f"{root}/configs/logging.conf",
                # All that was merged and checked, so that no other file is read. MONAI leaves out what is None, and
                # the first file's own would stand.
                **{key: "$None" if value is None else value for key, value in config.items()},
            )
    finally:
        for monai_logger in loggers:
            monai_logger.removeFilter(_problems_alone)


def _own_parts(files: Sequence[ConfigFile], overrides: Mapping[str, Any]) -> list[str]:
    """The keys where the user put code or a component: by --set, or by a file that is neither a run's nor PixNet's."""
    given = dict(overrides)
    for file in files[1:]:
        if file.path.resolve().parent != bundle_root() / "configs" and not is_of_a_run(file.path):
            given |= {key: as_code(value) for key, value in file.content.items()}
    return [key for key, value in given.items() if isinstance(value, (Code, dict))]


def _problems_alone(record: logging.LogRecord) -> bool:
    """Log filter: drop MONAI's lines about how it was called."""
    return record.levelno >= logging.ERROR


def _without_traceback(record: logging.LogRecord) -> bool:
    """Log filter: an error that ends in a sentence for the user needs no traceback before it."""
    if record.exc_info and record.exc_info[1] is not None and user_message(record.exc_info[1]) is not None:
        record.exc_info = None
    return True
