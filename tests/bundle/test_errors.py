from __future__ import annotations

import ast
import importlib.util
from pathlib import Path

import pytest

import bundle.errors
import networks.errors
import transforms.errors
from bundle.errors import InputError, is_input_error, user_message
from networks.encoders.errors import MissingExtraError, TooLittleError
from transforms import SlideError
from transforms.rasterize import UnitError

ROOT = Path(__file__).parents[2]
ROOMS = (bundle.errors, networks.errors, transforms.errors)


def test_the_packages_share_one_exception():
    defined = set()
    for module in ROOMS:
        tree = ast.parse(Path(module.__file__).read_text())
        (node,) = (n for n in tree.body if isinstance(n, ast.ClassDef))
        defined.add(ast.dump(node))
    assert len(defined) == 1


@pytest.mark.parametrize("module", ROOMS, ids=lambda m: m.__name__)
@pytest.mark.parametrize("prefix", ["", "pixnet."])
def test_it_is_known_under_either_name_of_its_package(module, prefix):
    spec = importlib.util.spec_from_file_location(prefix + module.__name__, module.__file__)
    again = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(again)
    error = type("Own", (again.InputError,), {})("It is wrong. Mend it.")
    assert not isinstance(error, module.InputError)
    assert is_input_error(error)
    assert user_message(RuntimeError("MONAI says so")) is None
    with pytest.raises(RuntimeError) as wrapped:
        raise RuntimeError("MONAI says so") from error
    assert user_message(wrapped.value) == "It is wrong. Mend it."


@pytest.mark.parametrize("kind", [InputError, MissingExtraError, SlideError, TooLittleError, UnitError])
def test_every_kind_of_bad_input_is_one(kind):
    assert is_input_error(kind("It is wrong. Mend it."))


def test_an_error_of_the_same_name_from_elsewhere_is_none():
    assert not is_input_error(type("InputError", (ValueError,), {"__module__": "elsewhere.errors"})("x"))
    assert not is_input_error(ValueError("x"))


def test_nobody_recognises_errors_by_an_attribute():
    for room in ("bundle", "networks", "transforms"):
        for path in (ROOT / room).rglob("*.py"):
            assert "for_user" not in path.read_text(), path
