"""The studies folder: slides, some of them with their measured units in a file of the same name."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from ...data.manifest import SLIDE_ENDINGS, slide_name
from ...errors import InputError

__all__ = ["find_slide", "slides_of", "studies_with_units"]


def slides_of(studies: str | Path) -> list[Path]:
    """Slides of the folder itself, by name; a link counts as the slide that it leads to."""
    return sorted(p for p in Path(studies).iterdir() if p.name.lower().endswith(SLIDE_ENDINGS) and p.is_file())


def find_slide(studies: str | Path, image: Any) -> Path:
    """The slide that a request names, with or without its ending.

    Raises:
        InputError: if it names no slide of the folder; a path that leads elsewhere is never opened.
    """
    folder = Path(os.path.abspath(studies))
    if not isinstance(image, str) or not image:
        raise InputError("The request names no slide: give image=NAME, the name of a slide in the studies folder.")
    path = Path(os.path.normpath(folder / image))
    if path.parent != folder:
        raise InputError(f'"{image[:100]}" lies outside of the studies folder; name a slide that is in it.')
    for slide in slides_of(folder):
        if path.name in (slide.name, slide_name({"image": slide.name})):
            return slide
    names = [slide_name({"image": slide.name}) for slide in slides_of(folder)]
    raise InputError(
        f'There is no slide "{path.name[:100]}" in the studies folder; it holds {", ".join(names[:5]) or "none"}'
        f"{', ...' if len(names) > 5 else ''}."
    )


def studies_with_units(studies: str | Path) -> list[dict[str, Any]]:
    """Training records of the slides that have a `.h5ad` of their name beside them (docs/guide/your_data.md).

    Raises:
        InputError: if there are none.
    """
    found = []
    for slide in slides_of(os.path.abspath(studies)):
        units = slide.with_name(slide_name({"image": slide.name}) + ".h5ad")
        if units.is_file():
            found.append({"image": str(slide), "label": str(units)})
    if not found:
        raise InputError(
            "No slide of the studies folder has measured units: put NAME.h5ad beside NAME.tif "
            "(docs/guide/your_data.md)."
        )
    return found
