"""Which slide units lie on, as `uns["spatial"]` says: barcodes of the legacy arrays (10x12) repeat between sections."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image

__all__ = ["SectionIdentity", "as_uint8", "other_slide", "section_of", "sections_of"]

_SIDE_PX = 64
#: Two pictures of one slide correlate above .99, neighbouring sections of one block up to .85.
_ALIKE = 0.95
_ASPECT_TOLERANCE = 0.03


@dataclass(frozen=True, eq=False)
class SectionIdentity:
    """A slide by name and look.

    Attributes:
        where: the file that says so, for messages.
        name: the slide's.
        look: its picture in 64 x 64 grey pixels, whatever its shape; None where there is no picture.
        aspect: the picture's height over its width.
    """

    where: str
    name: str
    look: np.ndarray | None = None
    aspect: float = 1.0

    @classmethod
    def of_picture(cls, where: str, name: str, picture: np.ndarray | None) -> SectionIdentity:
        """From a picture of the whole slide, (h, w, 3): uint8, or as scanpy keeps them from 0 to 1."""
        if picture is None or picture.ndim != 3 or picture.shape[2] < 3 or not picture.size:
            return cls(where, name)
        grey = Image.fromarray(np.ascontiguousarray(as_uint8(picture[..., :3]))).convert("L")
        look = np.asarray(grey.resize((_SIDE_PX, _SIDE_PX), Image.Resampling.BOX), dtype=np.float64)
        return cls(where, name, look if look.std() > 0 else None, picture.shape[0] / picture.shape[1])


def as_uint8(picture: np.ndarray) -> np.ndarray:
    """A picture as uint8; scanpy keeps pictures as floats from 0 to 1."""
    return picture if picture.dtype == np.uint8 else np.clip(np.rint(picture * 255.0), 0, 255).astype(np.uint8)


def sections_of(uns: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    """The slides of an AnnData by name; CELLxGENE keeps a flag among them."""
    held = uns.get("spatial")
    return {k: v for k, v in held.items() if isinstance(v, Mapping)} if isinstance(held, Mapping) else {}


def section_of(uns: Mapping[str, Any], where: str) -> SectionIdentity | None:
    """The slide of an AnnData; None where it names none, or several."""
    sections = sections_of(uns)
    if len(sections) != 1:
        return None
    ((name, content),) = sections.items()
    images = content.get("images", {})
    picture = images.get("hires") if isinstance(images, Mapping) else None
    return SectionIdentity.of_picture(where, str(name), None if picture is None else np.asarray(picture))


def other_slide(a: SectionIdentity | None, b: SectionIdentity | None) -> tuple[str, bool]:
    """Explain why two files come from different slides, as the beginning of a sentence, and whether that is certain.

    Empty where nothing does: pictures that look alike outweigh names, since files are renamed.
    """
    if a is None or b is None:
        return "", False
    alike = _look_alike(a, b)
    if alike or (alike is None and a.name == b.name):
        return "", False
    pictures = " and their pictures of it differ" if alike is False else ""
    if a.name == b.name:
        return f"{a.where} and {b.where} are both of {a.name}, but{pictures.removeprefix(' and')}", False
    return f"{a.where} is of the slide {a.name}, {b.where} of {b.name}{pictures}", alike is False


def _look_alike(a: SectionIdentity, b: SectionIdentity) -> bool | None:
    if a.look is None or b.look is None:
        return None
    if abs(np.log(a.aspect / b.aspect)) > _ASPECT_TOLERANCE:
        return False
    return bool(np.corrcoef(a.look.ravel(), b.look.ravel())[0, 1] >= _ALIKE)
