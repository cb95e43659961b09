from __future__ import annotations

import pytest

from benchmarks.mutants import ROOT, Mutant, StaleError, read_mutants


@pytest.mark.parametrize("mutant", read_mutants(), ids=lambda mutant: mutant.name)
def test_a_mutants_line_is_in_the_source_once_and_its_tests_exist(mutant: Mutant) -> None:
    mutant.place(ROOT)
    for test in mutant.tests:
        file, _, rest = test.partition("::")
        source = (ROOT / file).read_text()
        name = rest.partition("[")[0]
        assert not name or f"def {name}(" in source


def test_there_are_at_least_40_over_the_whole_data_path() -> None:
    rooms = {mutant.file.split("/")[0] for mutant in read_mutants()}
    assert len(read_mutants()) >= 40
    assert rooms == {"bundle", "configs", "networks", "transforms"}


def test_a_line_that_is_gone_or_twice_there_is_reported_and_one_that_moved_into_a_package_is_found(tmp_path) -> None:
    mutant = Mutant("m", "wrong", "a.py", "x = 1", "x = 2", ("t.py",))
    (tmp_path / "a.py").write_text("x = 1\nx = 1\n")
    with pytest.raises(StaleError, match="2 times"):
        mutant.place(tmp_path)
    (tmp_path / "a.py").write_text("y = 1\n")
    with pytest.raises(StaleError, match="0 times"):
        mutant.place(tmp_path)
    (tmp_path / "a.py").unlink()
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "b.py").write_text("x = 1\n")
    assert mutant.place(tmp_path) == tmp_path / "a" / "b.py"
