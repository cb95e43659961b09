"""Is it H&E at all? What tags and pixels say: 8-bit RGB of light through a slide, no fluorescence, no grey picture."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np

from .errors import SlideError

__all__ = ["doubts_by_tags", "judge_pixels", "refuse_by_tags"]

_MINISWHITE, _MINISBLACK, _RGB, _PALETTE, _YCBCR = 0, 1, 2, 3, 6
_OLD_JPEG, _JPEGS, _APERIO_YCBCR = 6, (7, 34892), 33003
_COLORS = ({"red", "r"}, {"green", "g"}, {"blue", "b"})
# Names that say nothing, and those of light through a slide; any other name is a marker's or a dye's.
_PLAIN_NAME = re.compile(
    r"(channel|ch|c|image|series|plane)?[\s:_=#-]*[\d:]*|rgb.*|r|g|b|red|green|blue|.*bright.?field.*|bf|tl.*|.*transmi.*"
    r"|h\s?(&|and|\+)?\s?e.*|.*ha?ematoxylin.*eosin.*|default|unknown|none|camera.*|color.*|colour.*|.*histolog.*|overview|main",
    re.IGNORECASE,
)
_DYE = re.compile(
    r"(?<![a-z\d])(dapi|hoechst|fitc|tritc|texas.?red|cy[2357]|alexa.?(fluor)?|af\d{3}|[egry]?[gryc]fp|opal|sytox|draq)(?![a-z])",
    re.IGNORECASE,
)
# On real H&E, at any exposure and on black padding, lit pixels have a median above 130 (on padding above 160), and the
# 90th percentile of their least channel is .7 or more of that of their brightest: something nearly white is there. In
# composites of real DAPI and polyT the median is near 95, and that share is 0, unless dyes lie on each other.
_DARK = 40  # a pixel below this in all channels is dark
_DIM = 130
_PURE = 0.4
_SURELY_PURE = 0.15  # eosin alone, with the glass masked in black, has .3
_LIT = 0.01  # with fewer lit pixels than this share, nothing can be said
_GREY = 2  # channels of a grey picture differ by at most this, after JPEG
_GREY_SPAN = 40  # a grey picture spans more than this between its darkest and brightest pixels; glass does not


def refuse_by_tags(path: Path, series: Any, ome_metadata: str | None) -> None:
    """Refuse what its tags show to be no H&E, or to hold colours in a way that nothing here converts.

    Raises:
        SlideError: with the evidence.
    """
    key = series.keyframe
    samples = math.prod(n for axis, n in zip(series.axes, series.shape, strict=True) if axis in "SC")
    names, light = _ome_channels(ome_metadata)
    holds = f"{samples} channel{'s' if samples > 1 else ''} of {key.dtype}"
    if any(names):
        holds += f" ({', '.join(name or '?' for name in names[:8])})"
    photometric, compression = int(key.photometric), int(key.compression)
    is_rgb = len(names) == 1 and samples in (3, 4)  # one name for red, green and blue together
    if light:
        raise SlideError(f"{path} is no H&E: its metadata says {light}. PixNet reads H&E, seen in transmitted light.")
    is_marker = not is_rgb and any(_DYE.search(name) for name in names)
    if is_marker or (len(names) > 1 and not all(_PLAIN_NAME.fullmatch(name.strip()) for name in names)):
        raise SlideError(
            f"{path} is no H&E: it has {holds}, as fluorescence has. A slide of H&E is 8-bit RGB; give that of the "
            "same tissue."
        )
    if key.dtype != np.uint8:
        raise SlideError(f"{path} has {holds}; a slide of H&E is 8-bit RGB. Convert it first.")
    if key.bitspersample != 8 and photometric != _PALETTE:
        raise SlideError(
            f"{path} has {key.bitspersample} bits a channel; a slide of H&E is 8-bit RGB. Convert it first."
        )
    if photometric == _PALETTE and samples == 1 and key.colormap is not None:
        return
    are_planes = _are_named_rgb(names) or _are_planes(series)
    if photometric in (_MINISWHITE, _MINISBLACK) and not (are_planes and photometric == _MINISBLACK):
        pictures = samples * math.prod(n for a, n in zip(series.axes, series.shape, strict=True) if a not in "YXSC")
        what = "a grey picture" if pictures == 1 else f"{pictures} grey pictures, as the channels of fluorescence are,"
        raise SlideError(
            f"{path} is {what} and no H&E: it has {holds}, and none is tagged as red, green or blue. A slide of H&E is "
            "8-bit RGB; if it is one, save it so."
        )
    if compression == _OLD_JPEG:
        raise SlideError(f"{path} holds old-style JPEG, which PixNet does not decode. Save it anew.")
    if photometric == _YCBCR and compression not in (*_JPEGS, _APERIO_YCBCR):
        raise SlideError(f"{path} stores YCbCr without JPEG, which PixNet does not convert. Save it as RGB.")
    if photometric not in (_MINISBLACK, _RGB, _YCBCR):
        name = getattr(key.photometric, "name", photometric)
        raise SlideError(f"{path} stores its colours as {name}; a slide of H&E is 8-bit RGB. Convert it first.")
    if samples not in (3, 4):
        raise SlideError(f"{path} has {holds}; a slide of H&E is 8-bit RGB. Convert it first.")


def doubts_by_tags(series: Any, ome_metadata: str | None) -> Iterator[str]:
    """Yield what is readable but may not be what the user means."""
    key = series.keyframe
    names, _ = _ome_channels(ome_metadata)
    if len(names) == 1 and _DYE.search(names[0]):
        yield f"Its metadata names {names[0]!r}, as a dye of fluorescence: PixNet reads H&E."
    if int(key.photometric) == _MINISBLACK and not _are_named_rgb(names):
        yield "Its three channels have no names: PixNet reads them as red, green and blue."
    if key.samplesperpixel == 4 and int(key.photometric) == _RGB and not any(key.extrasamples):
        yield "It has a fourth channel without a meaning: PixNet reads red, green and blue alone."
    stacked = [(axis, n) for axis, n in zip(series.axes, series.shape, strict=True) if axis not in "YXSC" and n > 1]
    if stacked:
        yield f"It is a stack of {math.prod(n for _, n in stacked)} pictures: PixNet reads the first."
    if "Orientation" in key.tags and key.tags.valueof("Orientation", 1) not in (0, 1):
        yield "Its tags say that it is to be turned or flipped: PixNet reads it as it is stored."


def _are_named_rgb(names: list[str]) -> bool:
    return len(names) == 3 and all(n.strip().lower() in c for n, c in zip(names, _COLORS, strict=True))


def _are_planes(series: Any) -> bool:
    """Whether it has three channels, each in a plane of its own; where their names say nothing, their pixels decide."""
    channels = dict(zip(series.axes, series.shape, strict=True)).get("C")
    return channels == 3 and series.keyframe.samplesperpixel == 1


def judge_pixels(pixels: np.ndarray) -> tuple[bool, str | None]:
    """Judge whether pixels of a slide are H&E's.

    Args:
        pixels: uint8 (N, 3), from all over the slide.

    Returns:
        Whether they surely are not, and why it is doubtful in a sentence, or None.
    """
    if len(pixels) == 0:
        return False, None
    brightest, least = pixels.max(axis=1), pixels.min(axis=1)
    lit = brightest >= _DARK
    bright, least = brightest[lit], least[lit]
    share = len(bright) / len(pixels)
    if share >= _LIT:
        purity = np.percentile(least, 90) / np.percentile(bright, 90)
        is_pure = purity < _PURE
        median = np.median(bright)
        if share <= 0.5 and (is_pure or median < _DIM):
            dark = f"{100 * (1 - share):.0f} % of it is dark, as in fluorescence, and the rest "
            if is_pure:
                return bool(purity < _SURELY_PURE), f"{dark}has the colours of single dyes"
            return False, f"{dark}is dim (median {median:.0f} of 255)"
        if is_pure:
            return False, "it has the colours of single dyes, as fluorescence has"
        spans = np.ptp(np.percentile(brightest, [1, 99]))
        if spans > _GREY_SPAN and np.percentile(bright - least, 99.5) <= _GREY:
            return False, "its red, green and blue are equal: it is a grey picture"
    return False, None


def _ome_channels(metadata: str | None) -> tuple[list[str], str | None]:
    """The names of the first image's channels in OME metadata, and what it says of fluorescent light, if it does."""
    try:
        pixels = ElementTree.fromstring(metadata).find(".//{*}Pixels") if metadata else None
    except ElementTree.ParseError:
        return [], None
    channels = pixels.findall("{*}Channel") if pixels is not None else []
    light = None
    for channel in channels:
        for name, value in (("ContrastMethod", "Fluorescence"), ("IlluminationType", "Epifluorescence")):
            if channel.get(name) == value:
                light = f"{name}={value}"
    return [channel.get("Name", "") for channel in channels], light
