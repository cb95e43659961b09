"""The `pixnet` command: a thin, typed front for the configurations."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from ..errors import user_message
from .parser import build_parser

__all__ = ["SPIN_COUNT", "main"]

#: How often a waiting thread of GNU OpenMP looks again before it sleeps.
SPIN_COUNT = "3000"


def _wait_briefly() -> None:
    """Let waiting threads of GNU OpenMP, which torch loads, sleep soon.

    By default they keep their cores busy far longer. Where other processes want these cores, a step then takes up to a
    hundred times as long (`python -m benchmarks.busy`).
    """
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault("GOMP_SPINCOUNT", SPIN_COUNT)


class _Terminated(KeyboardInterrupt):
    """SIGTERM, which ends a command as Ctrl+C does: it removes unfinished outputs and releases its locks."""


@contextmanager
def _terminated_as_interrupted() -> Iterator[None]:
    """Raise `_Terminated` on SIGTERM, unless the program that calls us handles it."""
    if threading.current_thread() is not threading.main_thread() or signal.getsignal(signal.SIGTERM) != signal.SIG_DFL:
        yield
        return

    def stop(number: int, frame: object) -> None:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)  # a second one must not stop the tidying
        raise _Terminated

    signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; bad input ends it with a sentence and exit status 2."""
    _wait_briefly()
    args = build_parser().parse_args(argv)
    try:
        with _terminated_as_interrupted():
            return args.module.run(args) or 0
    except KeyboardInterrupt as stopped:
        print("Stopped. The same command goes on after the last whole step.", file=sys.stderr)
        return 143 if isinstance(stopped, _Terminated) else 130
    except Exception as error:
        message = user_message(error)
        if message is None:
            raise
        print(f"pixnet {args.command}: {message}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())
