from __future__ import annotations

import pytest

from bundle import InputError
from bundle.integrations.monai_label.studies import find_slide, slides_of, studies_with_units


@pytest.mark.parametrize("name", ["P1", "P1.tif"])
def test_a_slide_is_named_with_or_without_its_ending(studies, name):
    assert find_slide(studies, name) == studies / "P1.tif"
    assert find_slide(studies, str(studies / name)) == studies / "P1.tif"


@pytest.mark.parametrize("name", ["/etc/hostname", "../secret.tif", "P1/../../secret.tif", "sub/P1.tif", ".."])
def test_a_path_out_of_the_folder_is_never_opened(studies, name):
    (studies.parent / "secret.tif").touch()
    with pytest.raises(InputError, match="outside of the studies folder"):
        find_slide(studies, name)


@pytest.mark.parametrize("name", ["P9", "P1.h5ad", "P"])
def test_an_unknown_slide_is_refused_with_the_known_ones(studies, name):
    with pytest.raises(InputError, match="it holds P1, P2, P3"):
        find_slide(studies, name)


@pytest.mark.parametrize("name", [None, "", 7, ["P1"]])
def test_no_name_is_no_slide(studies, name):
    with pytest.raises(InputError, match="names no slide"):
        find_slide(studies, name)


def test_a_link_is_a_slide_of_the_folder(studies, tmp_path):
    (tmp_path / "C1.tif").symlink_to(studies / "P1.tif")
    assert find_slide(tmp_path, "C1") == tmp_path / "C1.tif"


def test_studies_with_units_are_those_with_a_file_beside_them(studies, tmp_path):
    records = studies_with_units(studies)
    assert [record["image"] for record in records] == [str(studies / "P1.tif"), str(studies / "P2.tif")]
    assert [record["label"] for record in records] == [str(studies / "P1.h5ad"), str(studies / "P2.h5ad")]
    assert len(slides_of(studies)) == 3
    with pytest.raises(InputError, match="beside"):
        studies_with_units(tmp_path)
