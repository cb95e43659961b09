"""Text from outside passes MONAI's parser as it is; code is only what a user marked as such."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest
from monai.bundle import ConfigParser

from bundle.cli.parser import build_parser
from bundle.config.literals import Code, as_code, escape, unescape
from bundle.config.merge import merge_config
from bundle.config.root import bundle_root

TEXTS = [
    "plain",
    "$1/0",
    "$import os",
    "@a",
    "@",
    "%b",
    "%run",
    "50%#1.tif",
    "a::b",
    "a@::b",
    "$'@a'",
    "\\#",
    "\udcff#$",
    "'\"\n\\@##x",
    ["$1/0", "b"],
    [["@a"], ["x#y", 3]],
    ["$a", float("inf"), "b"],
    [["@a", float("-inf")], "x#y"],
]


def parsed(value: object) -> list[object]:
    """What the parser makes of a value as a key of its own, as an argument, in a list and through a reference."""
    config = {"a": value, "b": {"_target_": "dict", "x": value}, "c": [value], "d": "@a", "e": "$[@a]", "run": "$1"}
    parser = ConfigParser(json.loads(json.dumps(config)))
    part, listed = parser.get_parsed_content("b")["x"], parser.get_parsed_content("c")[0]
    return [
        parser.get_parsed_content("a"),
        part,
        listed,
        parser.get_parsed_content("d"),
        *parser.get_parsed_content("e"),
    ]


@pytest.mark.parametrize("value", TEXTS, ids=repr)
def test_text_comes_out_as_it_went_in(value):
    assert parsed(escape(value)) == [value] * 5
    assert unescape(escape(value)) == value


def test_nor_is_a_number_that_is_none_in_the_way():
    name, number = unescape(escape(["$a", float("nan")]))
    assert name == "$a"
    assert number != number
    name, number = parsed(escape(["$a", float("nan")]))[0]
    assert name == "$a"
    assert number != number


def test_any_text_does():
    draw = random.Random(0)
    for _ in range(60):
        value = draw.choice("$@%#") + "".join(draw.choices("$@%#:'\"\\\n ab(){}[]é", k=draw.randrange(12)))
        assert parsed(escape(value))[:3] == [value] * 3, value


def test_code_stays_code():
    assert escape(Code("$1 + 1")) == "$1 + 1"
    assert escape(["$x", Code("@y")]) == [escape("$x"), "@y"]
    assert escape({"_target_": "a.B", "c": "@d"}) == {"_target_": "a.B", "c": "@d"}
    assert type(as_code("50%#1.tif")) is str  # nothing that MONAI evaluates
    assert unescape("$1 + 1") == "$1 + 1"
    assert unescape("$'@a'") == "$'@a'"  # MONAI would put something in the place of @a


def test_set_is_code_and_paths_are_data(tmp_path):
    args = build_parser().parse_args(["predict", "s.tif", "--model", "run", "--set", "tile_px=$512 * 2"])
    settings = {**dict(args.settings), "slides": "$1/0", "genes": ["@x", "%y"]}
    parser = ConfigParser(merge_config([bundle_root() / "configs" / "inference.json"], settings))
    assert parser.get_parsed_content("tile_px") == 1024
    assert parser.get_parsed_content("slides") == "$1/0"
    assert parser.get_parsed_content("genes") == ["@x", "%y"]


def test_a_path_of_a_configuration_file_may_hold_signs(tmp_path: Path):
    override = tmp_path / "50%#1.json"
    override.write_text(json.dumps({"dataset_dir": "/data/50%#1", "max_epochs": "$1 + 1"}))
    parser = ConfigParser(merge_config([bundle_root() / "configs" / "train.json", override], {}))
    assert parser.get_parsed_content("dataset_dir") == "/data/50%#1"
    assert parser.get_parsed_content("max_epochs") == 2
