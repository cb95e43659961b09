from __future__ import annotations

from types import SimpleNamespace

import pytest

from bundle import InputError
from bundle.data.panel import load_panel
from bundle.integrations.monai_label.request import (
    RESULTS,
    SlideRequest,
    options,
    read_request,
    read_training,
    training_options,
)


@pytest.fixture(scope="module")
def panel(tiny_run):
    return load_panel(tiny_run / "models" / "panel.json")


SLIDE = SimpleNamespace(level_dimensions=[(4000, 3000)], mpp=0.5)


def test_what_info_lists_is_what_a_request_may_say(panel):
    listed = options(panel)
    assert listed["gene"] == panel.genes
    asked = {"gene": listed["gene"][:3], "result": listed["result"][0], "unit_um": 16, "threshold": 2, "max_units": 7}
    assert asked.keys() == listed.keys()
    assert read_request(asked, panel) == SlideRequest("units", tuple(panel.genes[:3]), 16.0, 2.0, 7)
    defaults = read_request({}, panel)
    assert (defaults.unit_um, defaults.max_units, defaults.threshold) == (
        listed["unit_um"],
        listed["max_units"],
        listed["threshold"],
    )


def test_what_clients_add_is_left_alone(panel):
    added = {"model": "pixnet", "image": "a", "tile_size": [1024, 1024], "min_poly_area": 80, "device": "cuda"}
    assert read_request(added, panel) == read_request({}, panel)


def test_text_fields_of_a_form_are_read_as_numbers(panel):
    assert read_request({"unit_um": "16", "threshold": "1.5"}, panel) == read_request(
        {"unit_um": 16, "threshold": 1.5}, panel
    )


@pytest.mark.parametrize("size", [None, [0, 0]])
def test_no_size_is_the_whole_slide(panel, size):
    assert read_request({"size": size}, panel).region_px is None


def test_a_region_is_a_place_and_a_size(panel):
    assert read_request({"location": [5, 6], "size": [70, 80]}, panel).region_px == (5, 6, 70, 80)


@pytest.mark.parametrize(
    ("request_", "says"),
    [
        ({"gene": "NO_SUCH_GENE"}, "does not predict"),
        ({"gene": "gene011"}, 'did you mean "GENE011"'),
        ({"gene": []}, "name of a gene"),
        ({"gene": 7}, "name of a gene"),
        ({"result": "picture"}, "no result"),
        ({"result": "contours", "gene": ["GENE011", "GENE019"]}, "at most 1 gene;"),
        ({"unit_um": 0}, "unit_um"),
        ({"unit_um": "wide"}, "unit_um"),
        ({"unit_um": True}, "unit_um"),
        ({"unit_um": float("nan")}, "unit_um"),
        ({"unit_um": 10**400}, "unit_um"),
        ({"unit_um": "$1 + 1"}, "unit_um"),
        ({"max_units": 7.5}, "whole number"),
        ({"threshold": -1}, "threshold"),
        ({"max_units": 10**9}, "max_units"),
        ({"tresh_old": 1}, 'did you mean "threshold"'),
        ({"level": 2, "size": [10, 10]}, "level 0"),
        ({"size": [10]}, "two numbers"),
        ({"size": "10,10"}, "two numbers"),
        ({"size": [10, -10]}, "above 0"),
        ({"location": [10, 10]}, "above 0"),
        ({"location": [0, float("inf")], "size": [10, 10]}, "location"),
    ],
)
def test_a_bad_request_is_refused_in_a_sentence(panel, request_, says):
    with pytest.raises(InputError, match=says) as caught:
        read_request(request_, panel)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 250


def test_what_a_training_may_set_is_what_info_lists():
    assert read_training({}) == training_options()
    asked = {"max_epochs": 3.0, "learning_rate": "1e-3"}
    found = read_training({**asked, "client_id": "$client", "bundle_path": "/somewhere"})
    assert found == {"max_epochs": 3, "learning_rate": 1e-3}
    assert [type(found[key]) for key in asked] == [int, float]


@pytest.mark.parametrize("key", training_options())
@pytest.mark.parametrize(
    "value", ["$1", "$__import__('os')", "@device", "%x", [1], {"a": 1}, True, -1, 1e12, 10**400, float("nan"), "five"]
)
def test_a_training_is_set_by_numbers_alone(key, value):
    with pytest.raises(InputError, match=f'"{key}" is .*must be a number'):
        read_training({key: value})


def test_epochs_are_whole():
    with pytest.raises(InputError, match="whole number"):
        read_training({"max_epochs": 1.5})


@pytest.mark.parametrize("result", RESULTS)
def test_a_region_larger_than_the_slide_is_refused_for_every_result(result):
    with pytest.raises(InputError, match="larger than the slide"):
        SlideRequest(result, ("A",), 100.0, region_px=(0, 0, 1e9, 1e9)).check_extent(SLIDE)


def test_the_region_that_the_server_fills_in_suits_a_small_slide():
    small = SimpleNamespace(level_dimensions=[(300, 200)], mpp=0.5)
    SlideRequest("units", ("A",), 100.0, region_px=(0, 0, 2048, 2048)).check_extent(small)


def test_the_size_that_is_advised_is_accepted():
    with pytest.raises(InputError, match="unit_um of") as caught:
        SlideRequest("units", ("A",), 0.5).check_extent(SLIDE)
    advised = float(str(caught.value).rpartition("unit_um of ")[2].split()[0])
    SlideRequest("units", ("A",), advised).check_extent(SLIDE)
    SlideRequest("map", ("A",), 0.5).check_extent(SLIDE)
