"""What the pages say exists: links, commands with their options, keys of configurations."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest
from monai.bundle import ConfigParser

from bundle.cli.arguments import build_parser

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


@pytest.mark.parametrize("page", PAGES, ids=_name)
def test_settings_are_keys_of_the_configuration(page):
    for words in _commands(page):
        args = build_parser().parse_args(words)
        name = {"train": "train", "evaluate": "evaluate", "predict": "inference"}.get(args.command)
        if name is None:
            continue
        keys = ConfigParser(json.loads((ROOT / "configs" / f"{name}.json").read_text()))
        backbone = json.loads((ROOT / "configs" / "backbone.json").read_text())
        for key, _ in args.settings:
            known = key in keys or key == "start_from" or key.rpartition("#")[2] in backbone["network_def#encoder"]
            assert known, f"{key} of pixnet {' '.join(words)}"
        for config in getattr(args, "config", []):
            assert not config.startswith("configs/") or (ROOT / config).is_file(), config


@pytest.mark.parametrize("name", ["training", "prediction", "encoders"])
def test_options_are_keys_of_a_configuration(name):
    files = ("train", "inference", "evaluate", "mixed_sizes")
    keys = [ConfigParser(json.loads((ROOT / "configs" / f"{file}.json").read_text())) for file in files]
    text = re.sub(r"```.*?```", "", (ROOT / "docs" / "guide" / f"{name}.md").read_text(), flags=re.DOTALL)
    options = {*re.findall(r"`(?:--set )?\"?([a-z_]+(?:#[a-z_]+)*)=[^`]+`", text)} - {"key"}
    assert options
    for option in options:
        assert any(option in parser for parser in keys), option


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
