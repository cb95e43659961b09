"""Pictures of any kind as slides: read in place where tiles can be read, else rewritten once to a tiled pyramid."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
from PIL import Image

from ..data.opening import OpenSlide, SlideOpener
from ..errors import InputError
from ..files.atomic import file_state, open_array, read_state, write_json
from ..files.reading import check_file, reading
from ..writers.tiff_pyramid import SliceableImage, write_pyramid

__all__ = ["SlideFile", "as_slide", "is_plain_picture", "picture_size", "pixels_as_slide"]

JPEG_QUALITY = 95
MAX_PICTURE_PX = 2**32
_TIFF = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
_DECODERS = {b"\xff\xd8\xff": "jpeg8_decode", b"\x89PNG": "png_decode"}
_OTHERS = (b"\0\0\0\x0cjP", b"\xff\x4f\xff\x51", b"BM", b"RIFF", b"GIF8")  # JPEG 2000 twice, BMP, WebP, GIF
_ORIENTATION = 0x0112


@dataclass(frozen=True)
class SlideFile:
    """A slide that can be read tile by tile.

    Attributes:
        path: of the file.
        mpp: micrometres per pixel.
        rewritten: whether it is a copy that PixNet made.
        found: facts for the user, in words.
    """

    path: Path
    mpp: float
    rewritten: bool
    found: list[str] = field(default_factory=list)


def is_plain_picture(path: str | Path) -> bool:
    """Whether a file is a JPEG, PNG or other picture that cannot be read piece by piece, by its content."""
    try:
        with open(path, "rb") as file:
            head = file.read(12)
    except OSError:
        return False
    return head.startswith((*_DECODERS, *_OTHERS))


def picture_size(path: Path) -> tuple[int, int]:
    """Width and height of a plain picture.

    Raises:
        InputError: if it cannot be read.
    """
    with _opened(path) as picture:
        return picture.size


def as_slide(
    path: str | Path, target: str | Path, reader: SlideOpener, mpp: float | None = None, quality: int = JPEG_QUALITY
) -> SlideFile:
    """A slide to read in the place of a picture: itself, or a tiled pyramid that is written once.

    A slide whose tiles can be read stays where it is. JPEG, PNG and JPEG 2000, and TIFFs in strips, are decoded once
    into a temporary file and written as a tiled pyramid, so that memory does not grow with the picture. A pyramid that
    was made of the same picture before is kept.

    Args:
        path: the picture.
        target: the `.tif` to write if it must be rewritten.
        reader: opens slides (`transforms.SlideReader` is one).
        mpp: micrometres per pixel; what the file's tags say by default. Plain pictures need it.
        quality: of the JPEG inside the pyramid.

    Raises:
        InputError: if it cannot be read, is no H&E, is grey, or its scale is not known.
    """
    path, target = check_file(path, "Give the H&E picture."), Path(target)
    if is_plain_picture(path):
        if mpp is None:
            raise InputError(f"{path} does not say how many micrometres a pixel measures. Give --mpp.")
        _refuse_grey(path)
        made = [*file_state(path), mpp, quality]
        if not _is_made(target, made):
            _refuse_foreign(target)
            with _decoded(path, target.parent) as pixels:
                write_pyramid(target, pixels, mpp, quality=quality)
            _note(target, made)
        return SlideFile(target, mpp, True, [f"PixNet wrote {path.name} anew as a tiled pyramid.", *_turned(path)])
    slide = reader.open(str(path), mpp)
    if not _is_striped(path):
        return SlideFile(path, slide.mpp, False, [f"{path.name} is read where it lies, by {slide.backend}."])
    made = [*file_state(path), slide.mpp, quality]
    if not _is_made(target, made):
        _refuse_foreign(target)
        write_pyramid(target, _Region(slide), slide.mpp, quality=quality)
        _note(target, made)
    message = f"{path.name} is stored in strips, so PixNet wrote it anew as a tiled pyramid."
    return SlideFile(target, slide.mpp, True, [message])


def pixels_as_slide(pixels: SliceableImage, target: Path, mpp: float | None, made_from: str) -> SlideFile:
    """A slide of pixels that lie in no file, such as an image of a SpatialData; it is kept if it was made before.

    Args:
        pixels: uint8 (height, width, 3), read block by block.
        target: the `.tif`.
        mpp: micrometres per pixel.
        made_from: what tells these pixels from others.

    Raises:
        InputError: if the scale is not known.
    """
    if mpp is None:
        raise InputError(
            f"{target.stem}: nothing says how many micrometres a pixel of its picture measures. Give --mpp."
        )
    if not _is_made(target, [made_from, mpp]):
        _refuse_foreign(target)
        write_pyramid(target, pixels, mpp, quality=JPEG_QUALITY)
        _note(target, [made_from, mpp])
    return SlideFile(target, mpp, True, ["PixNet wrote the picture as a tiled pyramid."])


class _Region:
    """Level 0 of an open slide, sliced like an array."""

    def __init__(self, slide: OpenSlide) -> None:
        self._slide = slide
        width, height = slide.level_dimensions[0]
        self.shape = (height, width, 3)

    def __getitem__(self, index: tuple[slice, slice]) -> Any:
        rows, columns = index
        x, y = columns.start, rows.start
        return self._slide.read_region(x, y, columns.stop - x, rows.stop - y, self._slide.mpp)


def _is_striped(path: Path) -> bool:
    """Whether a TIFF keeps its full picture in strips; a scanner's own format is left to its reader."""
    with path.open("rb") as file:
        if file.read(4) not in _TIFF:
            return False
    if path.suffix.lower() in (".ndpi", ".scn", ".bif", ".svs", ".vms"):
        return False
    with reading(path, "cannot be read as a TIFF"), tifffile.TiffFile(path) as tiff:
        return not tiff.pages.first.is_tiled


@contextmanager
def _opened(path: Path) -> Iterator[Image.Image]:
    limit, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, MAX_PICTURE_PX  # Pillow refuses slides as "bombs"
    try:
        with reading(path, "cannot be decoded"):
            picture = Image.open(path)
        with picture:
            yield picture
    finally:
        Image.MAX_IMAGE_PIXELS = limit


@contextmanager
def _decoded(path: Path, folder: Path) -> Iterator[np.ndarray]:
    """The pixels of a plain picture, uint8 (height, width, 3), in a temporary file beside the output."""
    folder.mkdir(parents=True, exist_ok=True)
    with (
        tempfile.TemporaryDirectory(prefix=".picture.", dir=folder) as scratch,
        _opened(path) as picture,
    ):
        width, height = picture.size
        decoder = _decoder(path) if picture.mode == "RGB" else None
        if decoder is None:
            with reading(path, "cannot be decoded"):
                yield np.asarray(_on_white(picture))
            return
        pixels = open_array(Path(scratch) / "pixels.npy", (height, width, 3), np.uint8)
        with reading(path, "cannot be decoded"):
            decoder(np.memmap(path, np.uint8, "r"), out=pixels)
        yield pixels


def _decoder(path: Path) -> Callable[..., Any] | None:
    """What decodes a picture straight into a given array."""
    import imagecodecs

    with path.open("rb") as file:
        head = file.read(4)
    name = next((name for magic, name in _DECODERS.items() if head.startswith(magic)), None)
    return None if name is None else getattr(imagecodecs, name)


def _on_white(picture: Image.Image) -> Image.Image:
    if picture.mode in ("RGBA", "LA", "PA") or "transparency" in picture.info:
        picture = picture.convert("RGBA")
        white = Image.new("RGBA", picture.size, "white")
        return Image.alpha_composite(white, picture).convert("RGB")
    return picture.convert("RGB")


def _refuse_grey(path: Path) -> None:
    """Refuse a picture without colours, such as the CytAssist's."""
    with _opened(path) as picture:
        mode = picture.mode
        if mode == "RGB":
            with reading(path, "cannot be decoded"):
                picture.draft("RGB", (512, 512))  # a JPEG is decoded at an eighth of its size
                small = np.asarray(picture.resize((64, 64), Image.Resampling.NEAREST), np.int16)
            if np.ptp(small, axis=-1).max() > 3:
                return
        elif mode not in ("L", "LA", "1", "I", "F", "I;16"):
            return
    raise InputError(
        f"{path} is a grey picture and no H&E (CytAssist pictures are such). Give the H&E of the same tissue."
    )


def _turned(path: Path) -> list[str]:
    with _opened(path) as picture:
        turned = picture.getexif().get(_ORIENTATION, 1) not in (0, 1)
    return [f"{path.name} is tagged as to be turned or flipped; PixNet reads it as it is stored."] if turned else []


def _state(target: Path) -> Path:
    return target.with_name(f".{target.name}.made.json")


def _is_made(target: Path, made: list[Any]) -> bool:
    state = read_state(_state(target))
    return target.is_file() and state.get("from") == made and state.get("is") == file_state(target)


def _refuse_foreign(target: Path) -> None:
    """Refuse to replace a file that PixNet did not write."""
    if target.exists() and read_state(_state(target)).get("is") != file_state(target):
        raise InputError(f"{target} would be replaced by a tiled copy, and PixNet did not write it. Move it away.")


def _note(target: Path, made: list[Any]) -> None:
    write_json(_state(target), {"from": made, "is": file_state(target)})
