"""Arguments of the classes that a configuration names, and their defaults."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from importlib import import_module
from typing import Any

from .root import importable_root

__all__ = ["arguments_of", "with_defaults"]

_ROOMS = ("bundle.", "networks.", "transforms.")
_PLAIN = (bool, int, float, str)


def arguments_of(component: Any) -> dict[str, Any]:
    """The arguments of one of PixNet's own classes or functions, with their defaults.

    Args:
        component: a part of a configuration. Anything but a PixNet component has no arguments here.

    Returns:
        Names and defaults; `inspect.Parameter.empty` for a required argument.
    """
    target = component.get("_target_") if isinstance(component, Mapping) else None
    if not isinstance(target, str) or not target.startswith(_ROOMS):
        return {}
    importable_root()
    room, *names = target.split(".")
    found: Any = import_module(room)
    for name in names:
        found = getattr(found, name, None)
    if found is None:
        return {}
    return {name: argument.default for name, argument in inspect.signature(found).parameters.items()}


def with_defaults(component: Mapping[str, Any]) -> dict[str, Any]:
    """A component with the defaults of its class written out, where JSON can hold them."""
    return {
        **dict(component),
        **{
            name: list(default) if isinstance(default, tuple) else default
            for name, default in arguments_of(component).items()
            if name not in component and _is_plain(default)
        },
    }


def _is_plain(value: Any) -> bool:
    if isinstance(value, tuple):
        return all(map(_is_plain, value))
    return value is None or isinstance(value, _PLAIN)
