from __future__ import annotations

import itertools

import numpy as np
import pytest
from PIL import Image

from bundle.data.section_identity import SectionIdentity, other_slide, section_of

PICTURE = np.random.default_rng(0).integers(0, 255, (400, 300, 3), dtype=np.uint8)


def test_a_picture_is_the_same_at_another_size_and_as_floats():
    smooth = np.asarray(Image.fromarray(PICTURE[:40, :30]).resize((300, 400), Image.Resampling.BICUBIC))
    smaller = np.asarray(Image.fromarray(smooth).resize((149, 201), Image.Resampling.BOX))
    first = SectionIdentity.of_picture("a", "C5", smooth)
    for picture in (smaller, smooth / 255.0):
        assert other_slide(first, SectionIdentity.of_picture("b", "another name", picture)) == ("", False)
    for other in (smooth[::-1], smooth[:200], 255 - smooth):  # turned over, a part of it, a negative
        message, certain = other_slide(first, SectionIdentity.of_picture("b", "another name", other))
        assert certain
        assert message.startswith("a is of the slide C5, b of another name")


def test_what_is_not_known_decides_nothing():
    plain = np.full((40, 30, 3), 255, np.uint8)
    known = SectionIdentity.of_picture("a", "C5", PICTURE)
    for other in (None, SectionIdentity.of_picture("b", "C5", None), SectionIdentity.of_picture("b", "C5", plain)):
        assert other_slide(known, other) == ("", False)
    message, certain = other_slide(known, SectionIdentity.of_picture("b", "C3", plain))
    assert message
    assert not certain


def test_an_anndata_of_several_slides_or_none_is_of_no_slide():
    assert section_of({}, "f") is None
    assert section_of({"spatial": {"A": {}, "B": {}}}, "f") is None
    for flag in ({}, {"is_single": np.bool_(True)}):  # CELLxGENE's schema
        one = section_of({"spatial": {**flag, "A": {"images": {"hires": PICTURE}}}}, "f")
        assert one is not None
    assert (one.name, one.aspect) == ("A", 4 / 3)


@pytest.mark.real
def test_neighbouring_sections_do_not_look_alike(real_data):
    found = {}
    for path in sorted((real_data / "her2st" / "ST-imgs").rglob("*.jpg")):
        with Image.open(path) as image:
            image.draft("RGB", (1000, 1000))
            found[path.stem] = SectionIdentity.of_picture(path.name, path.stem, np.asarray(image.convert("RGB")))
    assert len(found) >= 2
    for a, b in itertools.combinations(found.values(), 2):
        assert other_slide(a, b)[1], (a.name, b.name)
