"""What the pages say exists: links, commands with their options, keys of configurations."""

from __future__ import annotations

import argparse
import ast
import json
import re
import shlex
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from bundle.cli.parser import build_parser
from bundle.config.merge import merge_config
from bundle.errors import InputError

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
_FENCED = re.compile(r"^```\w*[^\n]*\n(.*?)^```", re.MULTILINE | re.DOTALL)
_INLINE = re.compile(r"`(pixnet [^`]+)`")


def _name(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


def _commands(page: Path) -> Iterator[list[str]]:
    """The whole command lines of a page, as words."""
    text = page.read_text()
    lines = [line for block in _FENCED.findall(text) for line in block.replace("\\\n", " ").splitlines()]
    inline = [] if page.parent.name == "benchmarks" else _INLINE.findall(text)  # parts of commands there
    for line in [*lines, *inline]:
        words = shlex.split(re.sub(r"\s#.*", "", line)) if line.startswith("pixnet ") else []
        if len(words) > 2 and "..." not in words and "|" not in words:
            yield words[1:]


@pytest.mark.parametrize("page", PAGES, ids=_name)
def test_links_lead_to_what_is_there(page):
    for target in re.findall(r"\]\(([^)#]+)", page.read_text()):
        assert "://" in target or (page.parent / target).exists(), target


@pytest.mark.parametrize("page", PAGES, ids=_name)
def test_commands_have_the_options_that_the_page_gives(page):
    for words in _commands(page):
        build_parser().parse_args(words)


def _accepted(names: Sequence[str], settings: dict[str, object]) -> bool:
    """Whether PixNet's configurations take settings, by their keys and the kinds of their values."""
    try:
        merge_config([ROOT / "configs" / f"{name}.json" for name in names], settings)
    except InputError as error:
        print(error)
        return False
    return True


@pytest.mark.parametrize("page", PAGES, ids=_name)
def test_commands_set_what_can_be_set(page):
    for words in _commands(page):
        args = build_parser().parse_args(words)
        base = {"train": "train", "evaluate": "evaluate", "predict": "inference"}.get(args.command)
        if base is not None:
            own = [Path(name).stem for name in getattr(args, "config", []) if name.startswith("configs/")]
            assert _accepted([base, *own], dict(args.settings)), words


def _value(text: str) -> object:
    try:
        return json.loads(text)
    except json.JSONDecodeError:
        return text


@pytest.mark.parametrize("name", ["training", "prediction", "encoders"])
def test_options_are_keys_of_a_configuration(name):
    text = re.sub(r"```.*?```", "", (ROOT / "docs" / "guide" / f"{name}.md").read_text(), flags=re.DOTALL)
    options = dict(re.findall(r"`(?:--set )?\"?([a-z_]+(?:#[a-z_]+)*)=([^`\"]+)\"?`", text))
    options.pop("key", None)
    assert options
    for key, value in options.items():
        setting = {key: _value(value)}
        bases = (["train"], ["train", "efficientnet_lite"], ["inference"], ["evaluate"])
        assert any(_accepted(base, setting) for base in bases), key


def test_the_readme_begins_with_the_two_commands_and_stays_short():
    text = (ROOT / "README.md").read_text()
    assert len(text.splitlines()) < 120
    commands = [line.split("#")[0].strip() for block in _FENCED.findall(text) for line in block.splitlines()]
    assert commands[:2] == ["make demo", "make test"]


@pytest.mark.parametrize("page", [page for page in PAGES if "benchmarks" not in page.parts], ids=_name)
def test_a_page_is_short_enough_to_read(page):
    assert len(page.read_text().splitlines()) <= 150


def test_the_architecture_names_every_room():
    text = (ROOT / "docs" / "developer" / "architecture.md").read_text()
    for room in sorted(path.parent.name for path in (ROOT / "bundle").glob("*/__init__.py")):
        assert f"`bundle/{room}/`" in text, room


def test_pages_that_messages_name_are_there():
    for folder in ("bundle", "networks", "transforms", "benchmarks", "configs"):
        for path in (ROOT / folder).rglob("*"):
            if path.suffix in (".py", ".json") and "results" not in path.parts:
                for page in re.findall(r"docs/[\w/]+\.md", path.read_text()):
                    assert (ROOT / page).is_file() or "benchmarks" in page, f"{path.relative_to(ROOT)} names {page}"


def _options(parser: argparse.ArgumentParser) -> set[str]:
    """All options of a parser and of its commands."""
    found = set(parser._option_string_actions)
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            found |= {option for command in action.choices.values() for option in _options(command)}
    return found


def test_options_that_messages_of_the_readers_name_are_there():
    known = _options(build_parser())
    for path in (ROOT / "bundle" / "readers").glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                for option in re.findall(r"(?<!\S)--[a-z][a-z-]+|(?<=\()--[a-z][a-z-]+", node.value):
                    assert option in known, f"{path.name}, line {node.lineno}, names {option}"
