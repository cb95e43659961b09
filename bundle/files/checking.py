"""Check content by a JSON Schema; what is wrong becomes a sentence."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from functools import cache
from typing import Any

from ..errors import InputError, short

__all__ = ["check"]


def check(content: Any, schema: dict[str, Any], where: str, key: str = "", advice: str = "Copy it again.") -> None:
    """Refuse content that is not as a schema says.

    Args:
        content: of the file, or what was merged from several.
        schema: JSON Schema, whose every part has a `description` that ends "it must be ...".
        where: the file, for the sentence.
        key: where in the file the content is.
        advice: what to do where something is missing, a sentence.

    Raises:
        InputError: that names the first such place.
    """
    error = next(_validator()(schema).iter_errors(content), None)
    if error is None:
        return
    described = error.schema.get("description", "something else")
    while error.validator == "anyOf" and error.context:  # what was wrong with the first of the forms
        error = next(part for part in error.context if part.relative_schema_path[0] == 0)
        described = error.schema.get("description", described)
    path = ([key] if key else []) + list(error.absolute_path)
    if error.validator == "required":
        missing = next(name for name in error.validator_value if name not in error.instance)
        raise InputError(f"{where} lacks {_place([*path, missing], content)}. {advice}")
    what = f"{_place(path, content)} is" if path else "it holds"
    raise InputError(f"{where}: {what} {short(json.dumps(error.instance, default=str), 60)}; it must be {described}.")


def _place(path: Sequence[str | int], content: Any) -> str:
    """Where something is, in words; a slide of a data set is known by its image."""
    for number, step in enumerate(path[:-1]):
        content = content[step] if isinstance(content, (dict, list)) else None  # type: ignore[index]
        if isinstance(content, dict) and isinstance(content.get("image"), str) and path[-1] != "image":
            return f'"{"#".join(map(str, path[number + 1 :]))}" of {short(content["image"])}'
    return f'"{"#".join(map(str, path))}"'


@cache
def _validator() -> Any:
    """The validator, for which infinity is no number, and a tuple is an array."""
    from jsonschema import Draft202012Validator, validators

    types = Draft202012Validator.TYPE_CHECKER
    types = types.redefine_many(
        {
            "array": lambda _, value: isinstance(value, (list, tuple)),
            "number": lambda _, value: types.is_type(value, "integer") or _is_finite(value),
        }
    )
    return validators.extend(Draft202012Validator, type_checker=types)


def _is_finite(value: Any) -> bool:
    return isinstance(value, float) and math.isfinite(value)
