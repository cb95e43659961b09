"""A configuration as people write it."""

from __future__ import annotations

import re
from typing import Any

__all__ = ["as_written"]


def as_written(config: Any) -> Any:
    """A configuration as people write it: `@train#trainer`, which parsing turns into `@train::trainer`, and null."""
    if isinstance(config, dict):
        return {key: as_written(value) for key, value in config.items()}
    if isinstance(config, list):
        return [as_written(value) for value in config]
    if config == "$None":  # what `run_config` makes of null
        return None
    if isinstance(config, str):
        return re.sub(r"[@%]\w+(::\w+)+", lambda match: match[0].replace("::", "#"), config)
    return config
