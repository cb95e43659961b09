from __future__ import annotations

import base64
import io
import json
import re
import shutil
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path

import pytest
from PIL import Image

from bundle.errors import InputError
from bundle.report import write_report
from bundle.report.text import number

_VOID = {"meta", "img", "br", "link", "input"}


class _Page(HTMLParser):
    """Checks that tags are balanced and collects text, pictures and references."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[str] = []
        self.pictures: list[str] = []
        self.references: list[str] = []
        self.text = ""
        self.source = path.read_text(encoding="utf-8")
        self.feed(self.source)
        assert not self.open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        for name, value in attrs:
            if tag == "img" and name == "src":
                self.pictures.append(value or "")
            elif name in ("src", "href", "action", "data"):
                self.references.append(value or "")
        if tag not in _VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] != "style":
            self.text += data.replace("\u00a0", " ") + " "


def test_opens_offline(plain_run: Path, tmp_path: Path) -> None:
    page = _Page(write_report(plain_run, tmp_path / "page.html"))
    assert page.references == []
    assert not {"script", "link", "iframe"} & set(page.tags)
    assert "url(" not in page.source
    assert "@import" not in page.source
    assert len(page.source) < 6e6
    for picture in page.pictures:
        head, content = picture.split(",")
        assert head == "data:image/jpeg;base64"
        Image.open(io.BytesIO(base64.b64decode(content))).load()
    assert len(page.pictures) == 1 + 3 * 3  # the slide; measured, predicted, predicted on its own scale


def test_prints_the_figures(plain_run: Path, tmp_path: Path) -> None:
    page = _Page(write_report(plain_run, tmp_path / "page.html"))
    for name in ("test", "validation"):
        about = json.loads((plain_run / "evaluation" / f"{name}.json").read_text())
        for figures in about["scales"].values():
            for key in ("PCC@F", "PCC@S", "PCC@M", "PCC@M_pooled", "PCC@M_residual", "ceiling@M", "MSE", "MAE"):
                assert number(figures[key]) in page.text
            assert f">{figures['units']}</td>" in page.source
    assert "Report of run" in page.text
    assert "kept: epoch 2" in page.text


def test_default_place_and_same_bytes(make_run: Callable[..., Path]) -> None:
    run = make_run()
    first = write_report(str(run))
    assert first == run / "report.html"
    assert write_report(run, run / "again.html").read_bytes() == first.read_bytes()
    assert not list(run.glob(".*"))


@pytest.mark.parametrize("shared", [False, True])
def test_says_when_patients_are_shared(make_run: Callable[..., Path], shared: bool) -> None:
    page = _Page(write_report(make_run(shared=shared)))
    assert ("same patient in training and test" in page.text) == shared
    assert ("no patient in both training and test" in page.text) != shared
    assert ("The same patient is in training" in page.text) == shared


def test_names_from_data_are_escaped(make_run: Callable[..., Path]) -> None:
    page = _Page(write_report(make_run()))
    assert "<b>&GENE" in page.text
    assert "none & <such>" in page.text
    assert "such" not in page.tags


def test_best_median_and_worst_are_shown(plain_run: Path, tmp_path: Path) -> None:
    import pandas as pd

    table = pd.read_csv(plain_run / "evaluation" / "test_genes.csv", keep_default_na=False)
    table = table[table["mean8"]].sort_values("pcc_native", ascending=False)
    page = _Page(write_report(plain_run, tmp_path / "page.html"))
    shown = re.findall(r"(\S+): PCC ([−\d.]+)\s+(best|median|worst) of 8 genes", page.text)
    expected = [table.iloc[i] for i in (0, len(table) // 2, -1)]
    assert shown == [
        (row["gene"], number(row["pcc_native"]), name)
        for row, name in zip(expected, ("best", "median", "worst"), strict=True)
    ]


def test_requested_genes_are_shown_in_their_order_with_their_place(make_run: Callable[..., Path]) -> None:
    import pandas as pd

    run = make_run(tests=2)
    scored = pd.read_csv(run / "evaluation" / "test_genes.csv", keep_default_na=False)
    pcc = scored.set_index("gene")["pcc_native"].sort_values(ascending=False)
    asked = [pcc.index[4], pcc.index[1]]
    page = _Page(write_report(run, genes=asked))
    expected = [(gene, number(pcc[gene]), str(1 + list(pcc.index).index(gene))) for gene in asked]
    assert re.findall(rf"(\S+): PCC ([−\d.]+)\s+place (\d+) of {len(pcc)} genes", page.text) == expected * 2
    with pytest.raises(InputError, match=r"test_genes\.csv, the genes that were scored, does not hold KRT20"):
        write_report(run, genes=[*asked, "KRT20"])
    shutil.copy(run / "evaluation" / "test.json", run / "evaluation" / "truth.json")
    shutil.copytree(run / "predictions" / "test", run / "predictions" / "truth")
    scored[~scored["gene"].isin(asked)].to_csv(run / "evaluation" / "truth_genes.csv", index=False)
    assert "truth_genes.csv holds none of the given genes" in _Page(write_report(run, genes=asked)).text


def test_at_most_two_slides_the_best_and_the_worst(make_run: Callable[..., Path]) -> None:
    run = make_run(tests=4)
    per_slide = json.loads((run / "evaluation" / "test.json").read_text())["per_slide"]
    by_pcc = sorted(per_slide, key=lambda s: -per_slide[s]["native"]["PCC@M"])
    page = _Page(write_report(run))
    assert re.findall(r"(C\d) \(test\)", page.text) == [by_pcc[0], by_pcc[-1]]
    assert "Of 4 slides in test, the best and the worst predicted are shown" in page.text
    assert "Each of the 4 slides" in page.text


def test_says_how_many_patients_are_shared(make_run: Callable[..., Path]) -> None:
    run = make_run()
    path = run / "evaluation" / "test.json"
    about = json.loads(path.read_text()) | {"same_patient": True, "seen_patients": ["C"], "patients": 3}
    path.write_text(json.dumps(about))
    assert "1 of 3 patients in training and test" in _Page(write_report(run)).text


@pytest.mark.parametrize(
    ("gone", "sentence"),
    [
        ("predictions", r"maps of C1 are left out: its prediction test/C1\.h5ad is not in the run folder"),
        ("../data", "maps of test are left out: No data set at .* The data set is no longer where it was"),
        ("metrics.csv", r"no metrics\.csv"),
        ("models/panel.json", "Data, protocol and versions"),
        ("configs/train.json", r"no configs/train\.json"),
        ("evaluation/test_genes.csv", r"test_genes\.csv is missing"),
    ],
)
def test_what_is_missing_is_left_out_with_a_sentence(make_run: Callable[..., Path], gone: str, sentence: str) -> None:
    run = make_run()
    path = run / gone
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink()
    page = _Page(write_report(run))
    assert re.search(sentence, re.sub(r"\s+", " ", page.text))
    assert "What this cannot tell" in page.text


def test_bins_without_a_picture(make_run: Callable[..., Path]) -> None:
    page = _Page(write_report(make_run(shape="square", size_um=16.0, picture=False)))
    assert "bins of 16 µm" in page.text
    assert "No picture of the slide is stored" in page.text
    assert "deviance" in page.text
    assert "log1p counts" in page.text


def test_a_truth_beside_the_splits_is_mapped_too(make_run: Callable[..., Path]) -> None:
    run = make_run()
    for suffix in (".json", "_genes.csv"):
        shutil.copy(run / "evaluation" / f"test{suffix}", run / "evaluation" / f"truth{suffix}")
    shutil.copytree(run / "predictions" / "test", run / "predictions" / "truth")
    assert re.findall(r"C1 \((\w+)\)", _Page(write_report(run)).text) == ["test", "truth"]


def test_a_data_set_without_the_scored_slides(make_run: Callable[..., Path]) -> None:
    run = make_run()
    manifest = run.parent / "data" / "dataset.json"
    manifest.write_text(manifest.read_text().replace('"image": "C1.tif"', '"image": "C1.tif", "section": "other"'))
    assert "no longer lists the slides that were scored" in _Page(write_report(run)).text


def test_validation_alone_is_reported_as_such(make_run: Callable[..., Path]) -> None:
    run = make_run()
    (run / "evaluation" / "test.json").unlink()
    assert "scores the test" in _Page(write_report(run)).text


def test_nothing_evaluated_writes_nothing(make_run: Callable[..., Path]) -> None:
    run = make_run()
    shutil.rmtree(run / "evaluation")
    with pytest.raises(InputError, match="pixnet evaluate"):
        write_report(run)
    assert not (run / "report.html").exists()
