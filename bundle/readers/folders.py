"""Walk through folders, links followed, none twice."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

__all__ = ["walk"]


def walk(src: Path) -> Iterator[tuple[Path, list[str], list[str]]]:
    """Each folder below `src` with its folders and files, sorted; take folders out of the list to leave them out.

    Hidden folders and zarrs are not entered. Links to folders are followed, unless they lead where it has been.
    """
    seen: set[str] = set()
    for folder, inside, files in os.walk(src, followlinks=True):
        real = os.path.realpath(folder)
        if real in seen:
            inside.clear()
            continue
        seen.add(real)
        inside[:] = sorted(name for name in inside if not name.startswith(".") and not name.endswith(".zarr"))
        yield Path(folder), inside, sorted(files)
