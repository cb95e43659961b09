from __future__ import annotations

import csv
import re
import shutil
from pathlib import Path

import pytest

from benchmarks.store import RESULTS
from benchmarks.tables import MAX_LINES, PAGES, TABLES, main


@pytest.fixture
def copied(tmp_path: Path) -> tuple[Path, list[str]]:
    """A copy of the results, as a clean checkout has them, and of the pages; and the options that name it."""
    results, pages = tmp_path / "results", tmp_path / "pages"
    shutil.copytree(RESULTS, results, ignore=shutil.ignore_patterns("cache", "quick"))
    shutil.copytree(PAGES, pages)
    return tmp_path, ["--results", str(results), "--pages", str(pages)]


def test_the_pages_are_up_to_date(capsys: pytest.CaptureFixture) -> None:
    assert main(["--check"]) == 0, capsys.readouterr().err


def test_every_table_is_on_a_page_and_pages_are_short() -> None:
    texts = [page.read_text() for page in PAGES.glob("*.md")]
    assert sorted(re.findall(r"<!-- table: (\S+) -->", "".join(texts))) == sorted(TABLES)
    assert all(text.count("\n") <= MAX_LINES for text in texts)


@pytest.mark.parametrize(
    ("table", "where", "column", "page"),
    [
        ("accuracy", {"stage": "final", "method": "swin", "fold": "C3"}, "PCC@M", "her2st.md"),
        ("accuracy", {"stage": "screening", "method": "narrow"}, "MSE", "ablations.md"),
        ("scales", {"method": "crop", "trained": "train_55", "against": "truth"}, "PCC@M", "scales.md"),
        ("intervals", {"method": "efficientnet_lite", "other": "swin"}, "low", "her2st.md"),
        ("speed", {"benchmark": "flat"}, "value", "speed.md"),
        ("timing", {}, "steps", "protocol.md"),
    ],
)
def test_a_changed_number_makes_its_page_out_of_date(
    copied: tuple[Path, list[str]], capsys: pytest.CaptureFixture, table: str, where: dict, column: str, page: str
) -> None:
    folder, options = copied
    path = folder / "results" / f"{table}.csv"
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    for row in rows:
        if where.items() <= row.items():
            row[column] = str(2 * float(row[column]))
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    before = (folder / "pages" / page).read_text()
    assert main(["--check", *options]) == 1
    assert f"{page} is out of date: run python -m benchmarks.tables" in capsys.readouterr().err
    assert (folder / "pages" / page).read_text() == before
    assert main(options) == 0
    after = (folder / "pages" / page).read_text()
    assert after != before
    assert main(["--check", *options]) == 0
    text = [[line for line in page.splitlines() if not line.startswith("|")] for page in (before, after)]
    assert text[0] == text[1]


def test_an_unknown_table_and_a_long_page_are_errors(
    copied: tuple[Path, list[str]], capsys: pytest.CaptureFixture
) -> None:
    folder, options = copied
    intervals = (folder / "results" / "intervals.csv").read_bytes()
    page = folder / "pages" / "her2st.md"
    page.write_text("<!-- table: absent -->\n" + page.read_text())
    (folder / "pages" / "b.md").write_text("\n" * (MAX_LINES + 1))
    assert main(options) == 1
    said = capsys.readouterr().err
    assert "her2st.md: There is no table absent" in said
    assert f"b.md: The page has {MAX_LINES + 1} lines" in said
    assert (folder / "results" / "intervals.csv").read_bytes() == intervals
