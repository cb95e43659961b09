"""Bad input on the command line is answered with a sentence and status 2, never with a traceback."""

from __future__ import annotations

import contextlib
import errno
import io
import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import anndata as ad
import numpy as np
import pandas as pd
import pytest
import tifffile
from PIL import Image
from torch._utils import ExceptionWrapper

from bundle import workflows
from bundle.cli.main import main
from bundle.cli.parser import build_parser
from bundle.errors import InputError, user_message
from bundle.files.lock import output_lock
from tests import forking

ROOT = Path(__file__).parents[3]
Edit = Callable[[dict], object]


@pytest.fixture(scope="session")
def set_tiny(tiny) -> list[str]:
    return [text for key, value in tiny.items() for text in ("--set", f"{key}={json.dumps(value)}")]


@pytest.fixture
def dataset(phantom, tmp_path) -> Path:
    """A copy to spoil: P1 trains, P2 validates, P3 tests."""
    return Path(shutil.copytree(phantom, tmp_path / "dataset"))


def edit_manifest(dataset: Path, edit: Edit) -> None:
    path = dataset / "dataset.json"
    manifest = json.loads(path.read_text())
    edit(manifest)
    path.write_text(json.dumps(manifest))


def edit_units(path: Path, edit: Callable[[ad.AnnData], object]) -> None:
    adata = ad.read_h5ad(path)
    edit(adata)
    adata.write_h5ad(path)


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def without_tags(path: Path) -> Path:
    """The same slide, saying nothing of its resolution."""
    pixels = tifffile.imread(path)
    tifffile.imwrite(path, pixels, photometric="rgb", tile=(64, 64), metadata=None)
    return path


def sentence(*arguments: object) -> str:
    """What a refused command says; it must be the only thing on stderr."""
    errors = io.StringIO()
    with contextlib.redirect_stderr(errors):
        status = main([str(a) for a in arguments])
    said = errors.getvalue()
    assert status == 2, said
    (line,) = said.splitlines()
    head, _, text = line.partition(": ")
    assert head == f"pixnet {arguments[0]}"
    assert text.endswith((".", "?"))
    return text


def usage(capsys, *arguments: object) -> str:
    """What argparse says of arguments that it refuses."""
    with pytest.raises(SystemExit) as stop:
        main([str(a) for a in arguments])
    assert stop.value.code == 2
    return capsys.readouterr().err.splitlines()[-1]


# The data set ---------------------------------------------------------------------------------------------------------


def test_no_data_set(tmp_path):
    assert "pixnet prepare" in sentence("train", tmp_path / "none", tmp_path / "run")


def test_a_missing_image(dataset, tmp_path):
    (dataset / "slides" / "P2.tif").unlink()
    assert "P2.tif, which does not exist" in sentence("train", dataset, tmp_path / "run")


def test_a_patient_in_two_splits(dataset, tmp_path):
    edit_manifest(dataset, lambda m: m["test"][0].update(patient="P1"))
    said = sentence("train", dataset, tmp_path / "run")
    assert 'patient "P1" is in both training and test' in said
    assert "--split-by section" in said


@pytest.mark.parametrize(
    ("edit", "says"),
    [
        (lambda m: m.update(training=[]), "no training slides"),
        (lambda m: m.update(training=["slides/P1.tif"]), 'it must be a slide such as {"image"'),
        (lambda m: m["training"][0].pop("label"), 'has no "label"'),
        (lambda m: m["training"][0].update(mpp="half"), '"mpp" of slides/P1.tif is "half"; it must be a number'),
        (lambda m: m["training"][0].update(mpp=-1), "mpp=-1"),
    ],
)
def test_a_faulty_manifest(set_tiny, dataset, tmp_path, edit: Edit, says: str):
    edit_manifest(dataset, edit)
    assert says in sentence("train", dataset, tmp_path / "run", *set_tiny)


@pytest.mark.parametrize("text", ["{", "[]"])
def test_a_manifest_that_is_none(dataset, tmp_path, text: str):
    (dataset / "dataset.json").write_text(text)
    assert "dataset.json is not" in sentence("train", dataset, tmp_path / "run")


def test_a_split_without_slides(tiny_run, dataset):
    edit_manifest(dataset, lambda m: m.update(test=[]))
    assert 'no slide to score in its split "test"' in sentence("evaluate", tiny_run, "--dataset", dataset)


# Slides ---------------------------------------------------------------------------------------------------------------


def test_a_truncated_slide(set_tiny, tiny_run, dataset, tmp_path):
    for name in ("P1", "P3"):
        cut(dataset / "slides" / f"{name}.tif")
    assert "P1.tif is cut short" in sentence("train", dataset, tmp_path / "run", *set_tiny)
    assert "P3.tif is cut short" in sentence("evaluate", tiny_run, "--dataset", dataset)
    slide = dataset / "slides" / "P3.tif"
    assert "P3.tif is cut short" in sentence("predict", slide, tmp_path / "o.h5ad", "--model", tiny_run, "--bin-um", 16)


def test_a_slide_that_does_not_say_its_mpp(set_tiny, tiny_run, dataset, tmp_path):
    slide = without_tags(dataset / "slides" / "P1.tif")
    edit_manifest(dataset, lambda m: m["training"][0].pop("mpp"))
    said = sentence("train", dataset, tmp_path / "run", *set_tiny)
    assert '"mpp" beside "image" in dataset.json' in said
    predict = ("predict", slide, tmp_path / "o.h5ad", "--model", tiny_run, "--bin-um", 16)
    assert "--mpp" in sentence(*predict)
    assert "a pixel measures" in sentence(*predict, "--mpp", 500)
    assert main([str(a) for a in (*predict, "--mpp", 1)]) == 0
    assert ad.read_h5ad(tmp_path / "o.h5ad").uns["pixnet"]["slide_mpp"] == 1


def test_a_slide_that_is_none(tiny_run, tmp_path):
    picture = tmp_path / "a.jpg"
    Image.new("RGB", (64, 64)).save(picture)
    (tmp_path / "text.tif").write_text("no slide")
    (tmp_path / "folder").mkdir()
    more = (tmp_path / "o.h5ad", "--model", tiny_run, "--bin-um", 16)
    assert "Give --mpp" in sentence("predict", picture, *more)
    assert "cannot be read as a slide" in sentence("predict", tmp_path / "text.tif", *more)
    assert "No such slide" in sentence("predict", tmp_path / "none.tif", *more)
    assert "is a folder" in sentence("predict", tmp_path / "folder", *more)


# Units ----------------------------------------------------------------------------------------------------------------


def shift(adata: ad.AnnData) -> None:
    adata.obsm["spatial"] = adata.obsm["spatial"] + 5000.0


def rename_genes(adata: ad.AnnData) -> None:
    adata.var_names = [f"other-{gene}" for gene in adata.var_names]


@pytest.mark.parametrize("patient", ["P1", "P2"])  # of training, and of validation: before hours of training
def test_spots_outside_the_slide_are_reported_before_training(set_tiny, dataset, tmp_path, patient: str):
    edit_units(dataset / "units" / f"{patient}_spot55.h5ad", shift)
    said = sentence("train", dataset, tmp_path / "run", *set_tiny, "--set", "val_interval=5")
    assert f"units lie outside {dataset / 'slides' / patient}.tif (600 x 600 px)" in said


@pytest.mark.parametrize(
    "more",
    [
        ["--split", "validation", "--size-um", "16"],
        ["--split", "validation", "--dataset", "DATASET"],
        ["--name", "validation"],
        ["--set", "name=validation"],
        ["--set", "split=validation", "--set", "score_size_um=16"],
    ],
)
def test_what_decides_which_genes_are_predicted_is_not_replaced(tiny_run, dataset, more: list[str]):
    said = sentence("evaluate", tiny_run, *(str(dataset) if option == "DATASET" else option for option in more))
    assert "validation_genes.csv, which training wrote" in said
    assert "another --name" in said


@pytest.mark.parametrize("setting", ["name=[1]", "name=5", "split=[1]"])
def test_a_name_that_is_no_text(tiny_run, setting: str):
    said = sentence("evaluate", tiny_run, "--set", setting)
    key = setting.partition("=")[0]
    assert f'"{key}" is ' in said
    assert 'it must be text such as "test"' in said


def test_spots_outside_the_slide_to_evaluate_or_predict(tiny_run, dataset, tmp_path):
    spots = dataset / "units" / "P3_spot55.h5ad"
    edit_units(spots, shift)
    assert "lie outside" in sentence("evaluate", tiny_run, "--dataset", dataset)
    slide = dataset / "slides" / "P3.tif"
    assert "lie outside" in sentence("predict", slide, tmp_path / "o.h5ad", "--model", tiny_run, "--spots", spots)


def test_training_slides_without_a_shared_gene(set_tiny, dataset, tmp_path):
    edit_units(dataset / "units" / "P2_spot55.h5ad", rename_genes)
    edit_manifest(dataset, lambda m: m.update(training=m["training"] + m["validation"], validation=[]))
    assert "No gene is shared" in sentence("train", dataset, tmp_path / "run", *set_tiny)


def test_validation_without_the_genes_is_reported_before_training(set_tiny, dataset, tmp_path):
    edit_units(dataset / "units" / "P2_spot55.h5ad", rename_genes)
    said = sentence("train", dataset, tmp_path / "run", *set_tiny, "--set", "val_interval=5")
    assert "P2_spot55.h5ad lacks 30 of the 30 genes" in said


def spoil_first(value: float) -> Callable[[ad.AnnData], None]:
    def edit(adata: ad.AnnData) -> None:
        counts = adata.X.toarray()
        counts[0, 0] = value
        adata.X = counts

    return edit


@pytest.mark.parametrize(
    ("edit", "says"),
    [
        (spoil_first(np.nan), "missing"),
        (spoil_first(-1), "negative"),
        (spoil_first(0.5), "fractional"),
        (lambda a: setattr(a, "var_names", ["A"] * a.n_vars), "29 gene names occur twice"),
        (lambda a: a.obsm.pop("spatial"), "no positions"),
        (lambda a: a.obsm.update(spatial=a.obsm["spatial"][:, :1]), "x and y"),
        (lambda a: (a.uns.pop("unit"), a.uns.pop("spatial")), "how large"),
        (lambda a: a.uns.update(unit={"shape": "hexagon", "size_um": 55.0}), "circle or square"),
    ],
)
@pytest.mark.parametrize("patient", ["P1", "P2"])
@pytest.mark.filterwarnings("ignore:Variable names are not unique")
def test_units_that_cannot_be_measurements(set_tiny, dataset, tmp_path, patient: str, edit, says: str):
    edit_units(dataset / "units" / f"{patient}_spot55.h5ad", edit)
    said = sentence("train", dataset, tmp_path / "run", *set_tiny)
    assert says in said
    assert f"{patient}_spot55.h5ad" in said


def test_counts_and_spots_that_do_not_match(tmp_path):
    rng = np.random.default_rng(0)
    x, y = (v.ravel() for v in np.meshgrid(np.arange(4), np.arange(4)))
    spots = pd.DataFrame({"x": x, "y": y, "pixel_x": 30.0 * x + 20, "pixel_y": 30.0 * y + 20, "selected": 1})
    names = [f"{i}x99" for i in range(16)]
    counts = pd.DataFrame(rng.poisson(3, (16, 3)), index=names, columns=["ACTB", "CD3E", "ERBB2"])
    counts.to_csv(tmp_path / "A1.tsv", sep="\t")
    spots.to_csv(tmp_path / "A1_selection.tsv", sep="\t", index=False)
    Image.fromarray(rng.integers(0, 256, (140, 140, 3), dtype=np.uint8)).save(tmp_path / "A1.jpg")
    prepare = ("prepare", tmp_path, tmp_path / "out")
    assert "only 0 of the 16 spots in A1_selection.tsv are among the 16 rows of A1.tsv" in sentence(*prepare)
    counts.set_axis([f"{a}x{b}" for a, b in zip(x, y, strict=True)]).to_csv(tmp_path / "A1.tsv", sep="\t")
    spots.assign(pixel_x=spots["pixel_x"] + 100).to_csv(tmp_path / "A1_selection.tsv", sep="\t", index=False)
    assert "lie outside A1.jpg (140 x 140 px)" in sentence(*prepare)


# Settings -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("setting", "says"),
    [
        ("max_epoch=3", 'no key "max_epoch". Did you mean "max_epochs"'),
        ("train#trainer#max_epoch=3", 'no key "train#trainer#max_epoch". Did you mean "max_epochs"'),
        ("mpp=fine", '"mpp" is "fine"; it must be a number of µm per pixel'),
        ("crop_px=0", "above 0"),
        ("crop_px=128.5", "whole number"),
        ("mpp=Infinity", "from 0.05 to 100"),
        ("unit_sizes_um=100", r"is 100; it must be a list such as \[100.0\]"),
        ("intensity=3", "keys and values of its own"),
        ("train#trainer#max_epochs=0", "above 0"),
        ("scales_um=400", "must be a list"),
        ("device=nowhere", 'no device "nowhere"'),
        ("head=quadratic", "networks.PixNet.*choose 'linear' or 'programs'"),
        ("unit_sizes_um=[7]", "has no units of 7 µm; it has 55, 16 µm"),
        ("min_total=1e9", "Lower min_total"),
    ],
)
def test_a_setting_that_does_not_work(set_tiny, phantom, tmp_path, setting: str, says: str):
    said = sentence("train", phantom, tmp_path / "run", *set_tiny, "--set", setting)
    assert re.search(says, said), said


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ('{"learning_rat": 1}', 'there is no key "learning_rat"'),
        ('{"mpp": "fine"}', '"mpp" is "fine"; it must be a number'),
        ("{", "is not valid JSON"),
        ("[1]", "is not a configuration"),
    ],
)
def test_an_override_file_that_does_not_work(phantom, tmp_path, text: str, says: str):
    path = tmp_path / "override.json"
    path.write_text(text)
    said = sentence("train", phantom, tmp_path / "run", "--config", path)
    assert said.startswith(str(path))
    assert says in said


def test_an_unknown_override_file(phantom, tmp_path):
    path = tmp_path / "none.json"
    said = sentence("train", phantom, tmp_path / "run", "--config", path)
    assert said == f"No such configuration: {path}. PixNet's own are in {ROOT / 'configs'}."


@pytest.mark.parametrize("setting", ["mpp", "=3"])
def test_a_setting_of_bad_form(capsys, setting: str):
    assert f"'{setting}' is not of the form key=value" in usage(capsys, "train", "data", "run", "--set", setting)


@pytest.mark.parametrize("genes", ["genes.txt", "lists/genes", "models/panel.json"])
def test_a_file_of_genes_that_is_not_there(capsys, genes: str):
    for command in (("predict", "slide", "o.h5ad", "--model", "run"), ("audit", "pred.h5ad", "truth.h5ad")):
        said = usage(capsys, *command, "--genes", genes)
        assert "there is no file" in said or "panel.json is missing" in said


@pytest.mark.parametrize("size", ["0", "-1", "nan", "wide"])
def test_a_size_that_is_none(capsys, size: str):
    said = usage(capsys, "predict", "slide", "o.h5ad", "--model", "run", "--bin-um", size)
    assert said.endswith(f"argument --bin-um: '{size}' is not a number above 0")


def test_scales_that_are_none(capsys, tiny_run, monkeypatch):
    assert "'a' is not a number above 0" in usage(capsys, "evaluate", "run", "--scales-um", "a,b")
    monkeypatch.setattr("bundle.SlideInferer.__call__", lambda *_: pytest.fail("predicted first"))
    assert "a scale of 10 µm has no truth" in sentence("evaluate", tiny_run, "--scales-um", "10")


def test_fewer_counts_than_none(capsys):
    said = usage(capsys, "audit", "pred.h5ad", "truth.h5ad", "--min-total", "-5")
    assert said.endswith("argument --min-total: '-5' is neither 0 nor a number above it")
    assert build_parser().parse_args(["audit", "pred.h5ad", "truth.h5ad", "--min-total", "0.0"]).min_total == 0


# Models and predictions -----------------------------------------------------------------------------------------------


def test_a_folder_that_is_no_run(phantom, tmp_path):
    slide = phantom / "slides" / "P3.tif"
    assert "pixnet train" in sentence("evaluate", phantom)
    assert "pixnet train" in sentence("predict", slide, tmp_path / "o.h5ad", "--model", phantom, "--bin-um", 16)
    assert "pixnet evaluate" in sentence("report", phantom)
    assert "No run at" in sentence("report", tmp_path / "none")


@pytest.mark.parametrize(
    ("file", "spoil", "says"),
    [
        ("models/model.pt", Path.unlink, "model.pt is missing"),
        ("models/model.pt", cut, "model.pt is cut short"),
        ("models/panel.json", cut, "panel.json is not valid JSON"),
        ("configs/model.json", cut, "model.json is not valid JSON"),
        ("configs/train.json", Path.unlink, "--dataset"),
    ],
)
def test_a_spoilt_run(tiny_run, tmp_path, file: str, spoil: Callable[[Path], object], says: str):
    spoilt = Path(shutil.copytree(tiny_run, tmp_path / "run"))
    spoil(spoilt / file)
    assert says in sentence("evaluate", spoilt)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ([], "which units?"),
        (["--pitch-um", "20"], "give --spot-um too"),
        (["--bin-um", "20", "--spot-um", "20"], "one of them"),
        (["--bin-um", "20", "--spots", "spots.h5ad"], "one of them"),
        (["--cells", "spots.h5ad"], "go with --spots"),
        (["--spots", "none.h5ad"], "No such file"),
        (["--bin-um", "16", "--genes", "NOSUCH"], "does not predict NOSUCH. Its 30 genes are listed in"),
        (["--bin-um", "16", "--genes", "gene011,GENE01l"], 'gene011, GENE01l. Did you mean "GENE011"?'),
        (["--bin-um", "16", "--lattice", "hex"], "--lattice arranges spots"),
        (["--spots", "spots.h5ad", "--pitch-um", "20"], "--pitch-um arranges spots"),
        (["--bin-um", "16", "--region", "0,0,20,20"], "no tissue found in this region"),
        (["--bin-um", "16", "--region", "300,300,3,3"], "no unit of 16 µm is on tissue in this region"),
        (["--bin-um", "16", "--genes", ","], "The list of genes is empty"),
        (["--bin-um", "16", "--set", "all_genes=False"], '"all_genes" is "False"; it must be true or false'),
        (["--bin-um", "16", "--set", "tile_px=wide"], '"tile_px" is "wide"; it must be a whole number above 0'),
        (["--set", 'bin_um=[16, "wide"]'], '"bin_um" is [16, "wide"]; it must be a number such as 16.0'),
        (["--bin-um", "16", "--set", "region_px=5"], '"region_px" is 5; it must be a list'),
        (["--bin-um", "16", "--set", "lattice=5"], '"lattice" is 5; it must be text such as "square"'),
        (["--bin-um", "16", "--set", "mpp=0.001"], '"mpp" is 0.001; it must be a number of µm per pixel from 0.05'),
    ],
)
def test_a_prediction_that_cannot_be(tiny_run, phantom, tmp_path, arguments: list[str], says: str):
    out = tmp_path / "o.h5ad"
    assert says in sentence("predict", phantom / "slides" / "P3.tif", out, "--model", tiny_run, *arguments)
    assert not out.exists()


@pytest.mark.parametrize("more", [[], ["--standard-error"]])
def test_an_output_that_another_command_writes_is_refused(tiny_run, phantom, tmp_path, more: list[str]):
    out = tmp_path / "o.h5ad"
    predict = ("predict", phantom / "slides" / "P3.tif", out, "--model", tiny_run, "--bin-um", "100", *more)
    with output_lock(out):
        assert "o.h5ad is in use: another command is writing the same output" in sentence(*predict)
    assert not list(tmp_path.iterdir())


def test_another_slides_spots_are_refused_and_doubtful_ones_reported(tiny_run, dataset, tmp_path):
    """Phantoms share their spots' names and places, as sections on a legacy array nearly do."""
    slide, spots, out = dataset / "slides" / "P3.tif", dataset / "units" / "P1_spot55.h5ad", tmp_path / "o.h5ad"
    predict = ("predict", slide, out, "--model", tiny_run, "--spots", spots)
    assert "P1_spot55.h5ad is of the slide P1, P3.tif of P3 and their pictures of it differ" in sentence(*predict)

    def warnings_of(edit: Callable[[dict], object]) -> str:
        edit_units(spots, lambda adata: edit(adata.uns["spatial"]))
        assert main([str(a) for a in predict]) == 0
        return " ".join(ad.read_h5ad(out).uns["pixnet"]["warnings"])

    assert "are both of P3, but their pictures" in warnings_of(lambda s: s.update(P3=s.pop("P1")))
    assert "of the slide P1, P3.tif of P3" in warnings_of(lambda s: s.update(P1={**s.pop("P3"), "images": {}}))
    assert "P3" not in warnings_of(lambda s: s.update(P3=s.pop("P1")))


def test_a_given_mpp_unlike_the_files_is_reported(tiny_run, phantom, tmp_path):
    slide, out = phantom / "slides" / "P3.tif", tmp_path / "o.h5ad"
    predict = (
        "predict",
        slide,
        out,
        "--model",
        tiny_run,
        "--bin-um",
        32,
        "--genes",
        tiny_run / "models" / "panel.json",
    )
    for mpp, expected in ((1.02, False), (1.2, True)):
        assert main([str(a) for a in (*predict, "--mpp", mpp)]) == 0
        said = [w for w in ad.read_h5ad(out).uns["pixnet"]["warnings"] if "The file says 1 µm per pixel" in w]
        assert bool(said) == expected


def test_a_place_that_cannot_be_written(tiny_run, phantom, tmp_path):
    (tmp_path / "file").write_text("")
    (tmp_path / "folder.h5ad").mkdir()
    more = ("--model", tiny_run, "--bin-um", 16)
    slide = phantom / "slides" / "P3.tif"
    assert "end its name in .h5ad" in sentence("predict", slide, tmp_path / "o.csv", *more)
    assert "is a folder" in sentence("predict", slide, tmp_path / "folder.h5ad", *more)
    assert "choose another place" in sentence("predict", slide, tmp_path / "file" / "o.h5ad", *more)
    assert "choose another place" in sentence("train", phantom, tmp_path / "file" / "run")


# How it is said -------------------------------------------------------------------------------------------------------


def test_the_terminal_shows_the_sentence_and_no_traceback(tiny_run, dataset, write_slide):
    """A refusal in the middle of a run, where Ignite and MONAI report errors of their own."""
    slide = dataset / "slides" / "P3.tif"
    write_slide(slide, tifffile.imread(slide), mpp=1.0, pyramid=False, compression="zlib")
    with tifffile.TiffFile(slide) as tiff:
        middle = sorted(tiff.pages[0].dataoffsets)[len(tiff.pages[0].dataoffsets) // 2]
    with slide.open("r+b") as file:
        file.seek(middle)
        file.write(bytes(16))
    command = [sys.executable, "-m", "bundle.cli", "evaluate", str(tiny_run), "--dataset", str(dataset)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)  # imports may speak too
    assert done.returncode == 2
    assert "Traceback" not in done.stdout + done.stderr
    (said,) = (line for line in done.stderr.splitlines() if not line.startswith(str(slide)))  # cuCIM's libtiff does
    assert said.startswith(f"pixnet evaluate: {slide}")
    assert "damaged: copy it again" in said


def test_a_command_says_what_it_did_and_nothing_of_how_monai_was_called(tiny_run, phantom, tmp_path):
    slide, out = str(phantom / "slides" / "P3.tif"), str(tmp_path / "b.h5ad")
    command = [sys.executable, "-m", "bundle.cli", "predict", slide, out, "--model", str(tiny_run), "--bin-um", "32,64"]
    done = forking.run(command, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    said = done.stdout + done.stderr
    assert not re.search("input summary|Not all config|logging properties|config_file", said), said
    written = [tmp_path / "b_32um.h5ad", tmp_path / "b_64um.h5ad"]
    assert done.stdout.splitlines()[-1] == f"Predicted: {written[0]}, {written[1]}"
    assert sorted(tmp_path.iterdir()) == written


@pytest.mark.parametrize(
    ("arguments", "first"),
    [
        (["--help"], "usage: pixnet"),
        (["predict", "--bin-mu", "16"], "[]"),
        (["predict", "none.tif", "o.h5ad", "--model", "run"], "Predicting none.tif with run"),
        (["predict", "README.md", "o.txt", "--model", "run"], "Predicting README.md with run"),
        (["predict", "README.md", "o.h5ad", "--model", "docs"], "Predicting README.md with docs"),
    ],
)
def test_the_first_line_and_plain_refusals_do_not_wait_for_slow_libraries(arguments, first):
    code = (
        "import sys\nfrom bundle.cli.main import main\n"
        "try: main(sys.argv[1:])\n"
        "except SystemExit: pass\n"
        "print(sorted({'torch', 'monai', 'numpy', 'pandas'} & {*sys.modules}))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments], cwd=ROOT, capture_output=True, text=True, check=True
    )
    lines = done.stdout.splitlines()
    assert lines[0].startswith(first)
    assert lines[-1] == "[]"


@pytest.mark.parametrize(
    ("command", "module"),
    [
        (["train", "data", "run"], "workflows.training"),
        (["evaluate", "run"], "workflows.evaluating"),
        (["predict", "s.tif", "o.h5ad", "--model", "run"], "workflows.inferring"),
        (["predict", "c.csv", "out", "--model", "run"], "integrations.cohort"),
        (["audit", "p.h5ad", "t.h5ad"], "audit"),
        (["report", "run"], "report"),
        (["export", "run", "o.onnx"], "integrations.onnx_file"),
        (["export-bundle", "run", "o.zip"], "integrations.bundle_zip"),
        (["demo", "demo"], "workflows.demo"),
    ],
)
def test_a_command_says_what_it_does_before_it_imports_what_does_it(command, module, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, f"bundle.{module}", None)  # importing it fails
    with pytest.raises(ImportError):
        main(command)
    assert capsys.readouterr().out.count("\n") == 1


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["predict", "s.tif", "o.h5ad", "--modle", "run"], 'no option --modle. Did you mean "--model"?'),
        (["predict", "s.tif", "o.h5ad", "--bin-mu=16"], 'no option --bin-mu. Did you mean "--bin-um"?'),
        (["train", "data", "run", "--xyz"], "no option --xyz."),
        (["predcit", "s.tif"], 'no command "predcit". Did you mean "predict"?'),
        (["x"], 'no command "x". The commands are demo, phantom, prepare, inspect, train'),
    ],
)
def test_a_mistyped_word_brings_the_nearest_one(capsys, arguments, said):
    assert said in usage(capsys, *arguments)


def test_an_option_may_be_shortened_and_a_value_may_look_like_one():
    parsed = build_parser().parse_args(["predict", "--mod", "run", "--genes=--A", "s.tif"])
    assert (parsed.model, parsed.genes) == ("run", ["--A"])


def test_a_worker_of_a_loader_says_the_sentence_alone():
    try:
        raise InputError("The slide is gone: bring it back.")
    except InputError:
        sent = ExceptionWrapper(where="in DataLoader worker process 0")
    with pytest.raises(InputError, match="Original Traceback") as caught:
        sent.reraise()
    assert user_message(caught.value) == "The slide is gone: bring it back."


def test_a_full_disk_is_reported_in_a_sentence():
    full = OSError(errno.ENOSPC, "No space left on device", "out.zarr")
    raised = RuntimeError("Failed to evaluate")
    raised.__cause__ = full
    assert user_message(raised).startswith("out.zarr cannot be written (No space left on device). Make room")
    assert user_message(OSError(errno.EIO, "Input/output error")) is None


def test_units_are_scored_at_the_size_of_training(tiny_run, dataset, tmp_path, monkeypatch):
    run = tmp_path / "run"
    shutil.copytree(tiny_run, run)
    trained_with = run / "configs" / "train.json"
    trained_with.write_text(json.dumps({**json.loads(trained_with.read_text()), "unit_sizes_um": [16, 64]}))
    sizes = []
    monkeypatch.setattr(
        "bundle.workflows.evaluating.run_config",
        lambda what, files, keys, trust: sizes.append(keys.get("score_size_um")),
    )
    workflows.evaluate(run)
    workflows.evaluate(run, size_um=16.0)
    workflows.evaluate(run, dataset=dataset)
    assert sizes == [64, 16.0, None]


def test_a_fault_of_ours_keeps_its_traceback(monkeypatch, tmp_path):
    def fail(*_: object) -> None:
        raise RuntimeError("a bug")

    monkeypatch.setattr("bundle.workflows.training.run_config", fail)
    with pytest.raises(RuntimeError, match="a bug"):
        main(["train", str(tmp_path), str(tmp_path / "run")])
