"""Which text of a configuration is code, and how data passes MONAI's parser as it is.

MONAI evaluates text that begins with `$`, follows `@`, copies from `%`, and reads `#` as `::`. Names and paths may hold
all of these. So text is data unless somebody marked it as `Code`.
"""

from __future__ import annotations

import ast
import math
import os
import re
from typing import Any

__all__ = ["Code", "as_code", "escape", "unescape"]

_SIGNS = ("$", "@", "%")


class Code(str):
    """Text that a user wrote as part of a configuration: `$` begins an expression, `@` a reference, `%` a copy."""


def as_code(value: Any) -> Any:
    """A value of `--set`, with its text marked as `Code`. A dictionary is configuration as it is."""
    if isinstance(value, str):
        return Code(value) if value.startswith(_SIGNS) else value
    return [as_code(item) for item in value] if isinstance(value, list) else value


def escape(value: Any) -> Any:
    """A value that MONAI's parser turns into just this value, whatever its text is.

    `Code` and dictionaries, which are configuration, stay as they are. Other text that the parser would change becomes
    an expression that holds nothing but a literal.
    """
    if isinstance(value, os.PathLike):
        value = os.fspath(value)
    if isinstance(value, (list, tuple)):
        items = list(value)
        if _is_data(items) and not _has_no_literal(items):
            return _literal(items) if _has_signs(items) else items
        return [escape(item) for item in items]
    if isinstance(value, str):
        value = value if isinstance(value, Code) else _literal(value) if _has_signs(value) else value
        return str(value)
    return value


def unescape(value: Any) -> Any:
    """The value that `escape` was given; what it did not make stays as it is."""
    if isinstance(value, list):
        return [unescape(item) for item in value]
    if not isinstance(value, str) or not value.startswith("$") or re.search("[#@%]", value):
        return value
    try:
        return ast.literal_eval(value[1:])
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        return value


def _is_data(value: Any) -> bool:
    if isinstance(value, (list, tuple)):
        return all(map(_is_data, value))
    return not isinstance(value, (Code, dict))


def _has_signs(value: Any) -> bool:
    if isinstance(value, (list, tuple)):
        return any(map(_has_signs, value))
    return isinstance(value, str) and (value.startswith(_SIGNS) or "#" in value or "::" in value)


def _has_no_literal(value: Any) -> bool:
    """Whether Python has no literal for a part: numbers that are infinite or none."""
    if isinstance(value, (list, tuple)):
        return any(map(_has_no_literal, value))
    return isinstance(value, float) and not math.isfinite(value)


def _literal(value: Any) -> str:
    # Within text, which is the only place of these characters, `\x23` means `#`.
    return "$" + re.sub("[#@%$:]", lambda sign: f"\\x{ord(sign[0]):02x}", ascii(value))
