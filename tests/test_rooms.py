"""The three rooms do not import each other; JSON wires them."""

from __future__ import annotations

import ast
import json
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
ROOMS = ("bundle", "networks", "transforms")


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
