from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import anndata as ad
import numpy as np
import pytest

from benchmarks.fuzz.base import Base
from benchmarks.fuzz.case import KINDS, Build, Case, draw
from benchmarks.fuzz.checks import predicted
from benchmarks.fuzz.damage import damage
from benchmarks.fuzz.runner import Bounds
from benchmarks.fuzz.trial import try_case

#: A process may have to be made first.
QUICK = Bounds(seconds=30.0, cpu_seconds=1)


@pytest.fixture
def build(tmp_path: Path) -> Build:
    made = Build(tmp_path / "case", Base(tmp_path / "base"), np.random.default_rng(0))
    made.input("mine.txt").write_text("mine")
    return made


def fault(build: Build, how: str, **case: object) -> Case:
    out = build.out("o.txt")
    written = [str(out)] if how in ("success", "partial") else []
    return Case(how, [how, *written], function="fault", outputs=[out], **case)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("how", "verdict"),
    [
        ("refuse", "sentence"),
        ("success", "right"),
        ("traceback", "traceback"),
        ("memory", "traceback"),
        ("crash", "crash"),
        ("spin", "hang"),
        ("silent", "wrong"),  # refused without a sentence
        ("partial", "wrong"),  # a refusal that leaves an output
        ("delete", "wrong"),  # and one that deletes a file of the user's
    ],
)
def test_each_verdict_is_given_to_a_command_with_that_fault(build: Build, how: str, verdict: str) -> None:
    found, why, _ = try_case(fault(build, how), build, QUICK)
    assert found == verdict, why


def test_a_command_that_waits_for_ever_hangs(build: Build) -> None:
    assert try_case(fault(build, "hang"), build, Bounds(seconds=1.0))[0] == "hang"


def test_a_marker_is_code_that_ran_unless_the_configuration_is_its_owners(build: Build) -> None:
    build.marker.write_text("ran")
    assert try_case(fault(build, "refuse"), build, QUICK)[0] == "executed"
    assert try_case(fault(build, "refuse", trusted=True), build, QUICK)[0] == "sentence"


@pytest.mark.parametrize(
    ("how", "case", "why"),
    [
        ("success", {"must": "sentence"}, "accepted"),
        ("refuse", {"must": "right"}, "refused what is harmless"),
        ("success", {"check": lambda: "is 3, not 4"}, "is 3"),
        ("success", {"check": lambda: 1 / 0}, "cannot be read"),
    ],
)
def test_a_result_that_is_not_the_right_one_is_wrong(build: Build, how: str, case: dict, why: str) -> None:
    found, said, _ = try_case(fault(build, how, **case), build, QUICK)
    assert (found, why in said) == ("wrong", True), said


def test_what_is_written_beside_the_output_is_wrong(build: Build) -> None:
    case = fault(build, "success")
    case.arguments = [*case.arguments, str(build.out(".o.part.txt"))]
    assert "left over" in try_case(case, build, QUICK)[1]
    case.arguments[-1:] = [str(build.input("mine.txt"))]  # type: ignore[index]
    build.out(".o.part.txt").unlink()
    assert "changed: in/mine.txt" in try_case(case, build, QUICK)[1]
    case = fault(build, "silent")
    case.arguments, case.must = ["success"], "right"  # exit status 0, and nothing is there
    build.out("o.txt").unlink()
    assert "exit status 0 without o.txt" in try_case(case, build, QUICK)[1]


def write(path: Path, change: Callable[[np.ndarray], None] = lambda x: None) -> Path:
    x = np.linspace(0, 9, 12, dtype=np.float32).reshape(4, 3)
    change(x)
    adata = ad.AnnData(x, obsm={"spatial": np.arange(8.0).reshape(4, 2)})
    adata.obs_names, adata.var_names = list("abcd"), list("xyz")
    adata.write_h5ad(path)
    return path


def test_the_check_of_a_prediction_sees_impossible_and_differing_values(tmp_path: Path) -> None:
    right = write(tmp_path / "right.h5ad")
    assert predicted(right, right, names="dcba", genes="xyz", n=4)() is None
    for value, problem in ((np.nan, "not finite"), (-0.1, "goes from"), (9.3, "goes from"), (3.2, "differs")):
        wrong = write(tmp_path / "wrong.h5ad", lambda x, value=value: x.__setitem__((1, 1), value))
        assert problem in str(predicted(wrong, right)())
    assert "units" in str(predicted(right, names="abc")())
    assert "genes" in str(predicted(right, genes="xy")())


def test_a_seed_draws_the_same_case_again_and_seeds_draw_every_kind(tmp_path: Path) -> None:
    assert [draw(seed)[0] for seed in range(50)] == [draw(seed)[0] for seed in range(50)]
    assert {draw(seed)[0] for seed in range(600)} == set(KINDS)
    files = []
    for name in "ab":
        path = tmp_path / name
        path.write_bytes(bytes(range(256)) * 20)
        damage(path, draw(3)[1])
        files.append(path.read_bytes())
    assert files[0] == files[1] != bytes(range(256)) * 20
