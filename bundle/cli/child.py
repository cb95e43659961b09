"""The `pixnet` command as a worker's child: it ends when the worker does. Run it with `python -m`."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time

from .main import main

__all__ = ["end_with_parent"]


def end_with_parent() -> None:
    """From now on, end this process and all that it starts as soon as its parent is gone.

    The parent holds the other end of our standard input. However it ends, the system closes that end.
    """
    threading.Thread(target=_watch, daemon=True).start()


def _watch() -> None:
    while os.read(0, 1):
        pass
    os.killpg(0, signal.SIGTERM)  # the command removes what is unfinished
    time.sleep(10)
    os.killpg(0, signal.SIGKILL)


if __name__ == "__main__":
    end_with_parent()
    sys.exit(main())
