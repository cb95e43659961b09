"""Who may import whom.

`transforms`, `networks` and `bundle` do not import each other: JSON wires them. They share one thing, the exception for
bad input, as a class of one name in each (`tests/bundle/test_errors.py`). Within `bundle` imports go down the floors.
"""

from __future__ import annotations

import ast
import json
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
ROOMS = ("bundle", "networks", "transforms")
#: The rooms of `bundle`, from the ground up. A room imports rooms of its own floor and of those below.
FLOORS = (
    ("errors", "version"),
    ("files",),
    ("config", "data"),
    ("metrics", "training"),
    ("inference", "speed"),
    ("writers",),
    ("datasets", "readers"),
    ("importing",),
    ("report",),
    ("audit",),
    ("viewer", "workflows"),
    ("integrations",),
    ("cli", "public"),
)


def _imports(path: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            found.add((node.module or "").split(".")[0])
    return found


@pytest.mark.parametrize("path", [p for room in ROOMS for p in sorted((ROOT / room).rglob("*.py"))], ids=str)
def test_a_room_imports_no_room_by_name(path):
    assert not _imports(path) & {*ROOMS, "pixnet", "tests", "benchmarks"}


def _rooms_imported(path: Path) -> set[str]:
    """The other rooms of `bundle` that a file of it imports."""
    parts = path.relative_to(ROOT / "bundle").with_suffix("").parts
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.level:
            module = [*parts[: len(parts) - node.level], *(node.module.split(".") if node.module else [])]
            found |= {module[0]} if module else {alias.name for alias in node.names}
    return found - {parts[0]}


def test_within_the_bundle_imports_go_down_the_floors():
    floor = {room: number for number, rooms in enumerate(FLOORS) for room in rooms}
    upwards = {
        f"{path.relative_to(ROOT)} imports {room}"
        for path in sorted((ROOT / "bundle").rglob("*.py"))
        for room in _rooms_imported(path)
        if path.parent != ROOT / "bundle" or path.name != "__init__.py"
        if floor[room] > floor[path.relative_to(ROOT / "bundle").with_suffix("").parts[0]]
    }
    assert not upwards


def test_the_bundle_has_no_loose_modules():
    loose = {path.stem for path in (ROOT / "bundle").glob("*.py")} - {"__init__"}
    assert loose == {"errors", "version"}
    known = {room for rooms in FLOORS for room in rooms}
    rooms = {path.parent.name for path in (ROOT / "bundle").glob("*/__init__.py")}
    assert rooms <= known, f"{rooms - known} has no floor"


def _targets(value) -> set[str]:
    if isinstance(value, dict):
        own = {value["_target_"]} if "_target_" in value else set()
        return own.union(*(_targets(v) for v in value.values()))
    return set().union(*(_targets(v) for v in value)) if isinstance(value, list) else set()


@pytest.mark.parametrize("path", sorted((ROOT / "configs").glob("*.json")), ids=lambda p: p.name)
def test_every_target_of_ours_is_public(path):
    import importlib

    for target in _targets(json.loads(path.read_text())):
        room, _, name = target.partition(".")
        if room in ROOMS:
            assert name.split(".")[0] in importlib.import_module(room).__all__, target


@pytest.mark.parametrize("path", sorted((ROOT / "benchmarks").rglob("*.py")), ids=lambda p: p.stem)
def test_what_a_benchmark_imports_of_ours_exists(path):
    """Mypy passes over modules that it does not find."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and not node.level and (node.module or "").split(".")[0] in ROOMS:
            place = ROOT.joinpath(*node.module.split("."))
            assert place.is_dir() or place.with_suffix(".py").is_file(), node.module
