"""Configurations that cannot work: what MONAI, or a class that it was to make, said of them, as a sentence."""

from __future__ import annotations

import re
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType

from ..errors import InputError, reason, user_message

__all__ = ["config_errors", "refused_setting"]

#: What MONAI says around an exception: which component, or which expression.
_WRAPPED = re.compile(
    r"Failed to (?:instantiate component '(?P<made>[\w.]+)'|evaluate ConfigExpression:(?P<evaluated>.+))", re.DOTALL
)
_WHERE = "PixNet looks for classes among installed packages and, for your own, in the current folder."
#: Where MONAI reads a configuration and calls what it names.
_READERS = ("monai.bundle.", "monai.utils.module")
#: What a class of MONAI or torch raises for arguments that do not suit it.
_OF_ARGUMENTS = (TypeError, ValueError, AttributeError, LookupError, AssertionError)


@contextmanager
def config_errors(own: Sequence[str] = ()) -> Iterator[None]:
    """Turn what is wrong with a configuration into a sentence, wherever it shows within the block.

    Args:
        own: keys at which the user has put parts of another kind than PixNet's. Where there are any, whatever else goes
            wrong is put down to them, with the line that raised it.

    Raises:
        InputError: in the place of an exception that is the user's to mend.
    """
    try:
        yield
    except Exception as error:
        sentence = user_message(error) or refused_setting(error) or (_failed_with(own, error) if own else None)
        if sentence is None:
            raise
        raise InputError(sentence) from error  # MONAI wraps it in a RuntimeError


def refused_setting(error: BaseException) -> str | None:
    """The sentence for a configuration that does not work; None where something else is wrong.

    A network, loss or transform is given nothing but the configuration, so whatever it raises while it is made is about
    that. So is what MONAI raises itself (no such reference, a circle, a wrong argument), and a failing expression.
    """
    what = ""
    while error.__cause__ is not None and (found := _WRAPPED.match(str(error))):
        what = found["made"] or _as_written(found["evaluated"])
        error = error.__cause__
    place = _raised_in(error.__traceback__)
    is_code, is_network = what.startswith("$"), what.startswith(("networks.", "transforms."))
    if is_network and type(error) is ValueError:
        return f"The configuration of {what} does not work. {error}"
    if is_code and "network_def" in what and type(error) is ValueError:
        return f"The configuration of network_def does not work. {error}"
    is_part = bool(what) and not is_code and not what.startswith("bundle.") and isinstance(error, _OF_ARGUMENTS)
    if (
        is_network
        or is_part
        or place.startswith(_READERS)
        or (is_code and place == "")
        or isinstance(error, SyntaxError)
    ):
        of = f" of {what}" if what and not is_code else f" has {what[:100]}, which" if what else ""
        sentence = f"The configuration{of} does not work ({type(error).__name__}: {reason(error)[:300].rstrip('.,')})."
        return f"{sentence} {_WHERE}" if "Cannot locate class" in sentence else sentence
    return None


def _failed_with(own: Sequence[str], error: BaseException) -> str:
    while error.__cause__ is not None:
        error = error.__cause__
    frames = traceback.extract_tb(error.__traceback__)[-1:]
    where = "".join(f"; {Path(frame.filename).name}, line {frame.lineno}" for frame in frames)
    return (
        f"The run fails with your {', '.join(own)} ({type(error).__name__}: {reason(error)[:300].rstrip('.,')}"
        f"{where}). Correct that part of the configuration, or leave it out. "
        "`python -m monai.bundle run` with the same keys shows the whole traceback."
    )


def _as_written(expression: str) -> str:
    """An expression with its references as the configuration has them."""
    return re.sub(r"__local_refs\['([\w:]+)'\]", r"@\1", " ".join(expression.split()).strip("'\" "))


def _raised_in(raised: TracebackType | None) -> str:
    """The module whose line raised it; empty for an expression of a configuration."""
    if raised is None:
        return "?"
    while raised.tb_next is not None:
        raised = raised.tb_next
    code = raised.tb_frame.f_code
    return "" if code.co_filename == "<string>" else str(raised.tb_frame.f_globals.get("__name__", "?"))
