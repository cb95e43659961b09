"""Which readers there are. A reader is a module here; its name is the technology's, with `_` for `-`.

It has `TITLE`, what people call the layout, and two functions:

- `find(src, options)` returns a `Place` for each sample below `src` by file names alone, none if it is another layout;
- `read(place, options)` returns the `Sample`.
"""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Protocol

from ..errors import InputError, did_you_mean
from .sample import Options, Place, Sample

__all__ = ["READERS", "Reader", "find_samples", "reader_of", "recognise", "register"]


class Reader(Protocol):
    """What a module of a technology offers."""

    TITLE: str

    def find(self, src: Path, options: Options) -> list[Place]:
        """The samples below `src`, by file names alone; none if it is another layout."""

    def read(self, place: Place, options: Options) -> Sample:
        """Read one sample."""


#: Layouts in the order in which they are tried: the more particular come first.
READERS: list[str] = ["visium-hd", "xenium", "hest", "spatialdata", "visium", "st", "anndata", "transcripts"]
_added: dict[str, Reader] = {}


def register(name: str, reader: Reader) -> None:
    """Add a reader of your own; it is tried before the others."""
    _added[name] = reader
    if name not in READERS:
        READERS.insert(0, name)


def reader_of(name: str) -> Reader:
    """The reader of a layout.

    Raises:
        InputError: if there is no such layout.
    """
    if name not in READERS:
        raise InputError(
            f'There is no layout "{name}"; choose one of {", ".join(READERS)}.{did_you_mean(name, READERS)}'
        )
    if name in _added:
        return _added[name]
    return importlib.import_module(f".{name.replace('-', '_')}", __package__)  # type: ignore[return-value]


def recognise(src: str | Path, options: Options | None = None) -> str:
    """The layout of a folder or file, by its files.

    Raises:
        InputError: if it is none that PixNet knows.
    """
    return find_samples(src, None, options or Options())[0]


def find_samples(src: str | Path, layout: str | None, options: Options) -> tuple[str, list[Place]]:
    """The layout below `src`, and where its samples lie.

    Args:
        src: a folder or a file.
        layout: the layout if it is known; else the first that finds a sample.
        options: what the user says.

    Raises:
        InputError: if nothing is there, or no sample in this layout.
    """
    src = Path(src)
    if not src.exists():
        raise InputError(f"There is no file or folder {src}. Check the path.")
    for name in [layout] if layout else READERS:
        places = reader_of(name).find(src, options)
        if options.only:
            known = [place.name for place in places]
            unknown = [wanted for wanted in options.only if wanted not in known]
            if places and unknown:
                hint = did_you_mean(unknown[0], known)
                raise InputError(f"{src} holds no sample {unknown[0]}; it holds {', '.join(known[:20])}.{hint}")
            places = [place for place in places if place.name in options.only]
        if places:
            return name, places
    if layout:
        raise InputError(
            f"{src} holds no sample of {reader_of(layout).TITLE}. Leave the layout out to have it recognised, or give "
            "the folder that holds its files."
        )
    titles = "; ".join(reader_of(name).TITLE for name in READERS)
    raise InputError(
        f"PixNet does not recognise the files of {src}. It knows {titles}. Give the folder that holds their files, or "
        "name the layout (--as)."
    )
