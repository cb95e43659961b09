from __future__ import annotations

import hashlib
import json
from pathlib import Path

import anndata as ad
import numpy as np
import pytest
import scipy.sparse as sp
import tifffile

from bundle.data.manifest import read_manifest
from bundle.data.read_units import read_units
from bundle.datasets.phantom import Layout, make_phantom, parse_layouts
from bundle.datasets.phantom.anatomy import TUMOUR, Anatomy
from bundle.datasets.phantom.dataset import make_specimens
from bundle.datasets.phantom.difficulty import Difficulty, measure_difficulty
from bundle.datasets.phantom.noise import Field
from bundle.datasets.phantom.stain import SlideImage
from bundle.errors import InputError

SMALL = {"size_um": 300.0, "mpp": 1.0, "genes": 20, "units": "spot:55:60,bin:8"}


@pytest.fixture(scope="module")
def phantom(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_phantom(tmp_path_factory.mktemp("phantom") / "a", slides=3, **SMALL)


@pytest.fixture(scope="module")
def anatomy() -> Anatomy:
    return Anatomy(5, 600.0, 0.2)


@pytest.fixture(scope="module", params=["programs", "free"])
def difficulty(request: pytest.FixtureRequest) -> Difficulty:
    return measure_difficulty(slides=3, size_um=1000.0, mpp=2.0, genes=40, mixture=request.param)


def fingerprint(folder: Path) -> dict[str, str]:
    prints = {}
    for path in sorted(folder.rglob("*")):
        name = str(path.relative_to(folder))
        if path.suffix == ".h5ad":
            a = ad.read_h5ad(path)
            content = (
                a.X.indices.tobytes() + a.X.data.tobytes() + a.obsm["spatial"].tobytes() + "".join(a.obs_names).encode()
            )
        elif path.is_file():
            content = path.read_bytes()
        else:
            continue
        prints[name] = hashlib.sha256(content).hexdigest()
    return prints


def test_is_a_data_set_split_by_patient(phantom: Path) -> None:
    manifest = read_manifest(phantom)
    assert manifest["split_by"] == "patient"
    assert [[r["patient"] for r in manifest[s]] for s in ("training", "validation", "test")] == [["P1"], ["P2"], ["P3"]]
    for record in (r for s in ("training", "validation", "test") for r in manifest[s]):
        assert [Path(label).stem.split("_")[1] for label in record["label"]] == ["spot55", "bin8"]
        with tifffile.TiffFile(record["image"]) as tiff:
            assert tiff.pages[0].shape == (300, 300, 3)
        for label, shape, size in zip(record["label"], ("circle", "square"), (55.0, 8.0), strict=True):
            units = read_units(label)
            assert (units.shape, units.size_um, units.kind, units.mpp) == (shape, size, "counts", 1.0)
            assert units.centers_px.min() >= 0
            assert units.centers_px.max() <= 300
            assert np.array_equal(units.counts.data, np.rint(units.counts.data))
            assert list(units.genes[-2:]) == ["AMBIENT01", "AMBIENT02"]


def test_truth_is_a_data_set_of_rates_on_tissue(phantom: Path) -> None:
    manifest = read_manifest(phantom / "truth")
    assert [len(manifest[s]) for s in ("training", "validation", "test")] == [0, 0, 1]
    (record,) = manifest["test"]
    assert Path(record["image"]).resolve() == (phantom / "slides" / "P3.tif").resolve()
    truth = read_units(record["label"][0])
    assert (truth.shape, truth.size_um, truth.kind) == ("square", 2.0, "rate")
    tissue = make_specimens(slides=3, size_um=300.0, genes=20)[2].anatomy
    assert (tissue.margin_um(*truth.centers_px.T) >= 0).all()
    assert 0.7 < len(truth) / 150**2 < 0.9  # 80 % of the slide
    assert len(np.unique(truth.centers_px, axis=0)) == len(truth)
    assert json.loads((phantom / "truth" / "dataset.json").read_text())["test"][0]["image"] == "../slides/P3.tif"


def test_same_seed_same_arrays_other_seed_other_arrays(phantom: Path, tmp_path: Path) -> None:
    again = fingerprint(make_phantom(tmp_path / "b", slides=3, **SMALL))
    assert again == fingerprint(phantom)
    other = fingerprint(make_phantom(tmp_path / "c", slides=3, seed=1, **SMALL))
    assert not set(other.values()) & {v for k, v in again.items() if not k.endswith(".json")}


def test_a_slide_does_not_depend_on_how_many_there_are() -> None:
    few, many = make_specimens(slides=1, genes=10), make_specimens(slides=3, genes=10)
    assert few[0].seed == many[0].seed
    assert len({s.seed for s in many}) == 3


def test_any_cut_of_a_slide_shows_the_same_pixels(anatomy: Anatomy) -> None:
    whole = SlideImage(anatomy, 0.5)[0:1200, 0:1200]
    for row, col, height, width in ((0, 0, 100, 100), (470, 480, 90, 130), (1000, 300, 200, 700)):
        alone = SlideImage(Anatomy(5, 600.0, 0.2), 0.5)[row : row + height, col : col + width]
        np.testing.assert_array_equal(alone, whole[row : row + height, col : col + width])


def test_no_seam_where_blocks_meet(anatomy: Anatomy) -> None:
    image = SlideImage(anatomy, 0.5)
    light = image[0:1200, 0:1200].astype(float).mean(2)
    across = np.abs(np.diff(light, axis=1)).mean(0), np.abs(np.diff(light, axis=0)).mean(1)
    for steps in across:  # a block ends at 512 and at 1024
        usual = steps[400:1100]
        assert max(steps[511], steps[1023]) < usual.mean() + 4 * usual.std()


def test_cells_do_not_depend_on_the_requested_region(anatomy: Anatomy) -> None:
    whole = anatomy.cells(0, 0, 600, 600)
    part = Anatomy(5, 600.0, 0.2).cells(250, 290, 400, 420)
    inside = (whole.x_um >= 250) & (whole.x_um < 400) & (whole.y_um >= 290) & (whole.y_um < 420)
    assert inside.sum() > 20
    for name in ("x_um", "y_um", "kind", "radius_um", "hidden"):
        expected, got = getattr(whole.take(inside), name), getattr(part, name)
        np.testing.assert_array_equal(
            got[np.lexsort((part.x_um, part.y_um))], expected[np.lexsort((whole.x_um[inside], whole.y_um[inside]))]
        )


def test_nuclei_do_not_overlap_and_their_cover_is_blind_to_their_size() -> None:
    tissue = Anatomy(3, 1500.0, 0.0)
    cells = tissue.cells(0, 0, 1500, 1500)
    tumour = cells.take((cells.kind == TUMOUR) & (cells.depth_um > 15))
    grid = np.floor(np.stack([tumour.x_um, tumour.y_um], 1) / 75).astype(int)
    bins = np.unique(grid, axis=0)
    centers = (bins + 0.5) * 75
    offsets = np.array([[dx, dy] for dx in (-40, 0, 40) for dy in (-40, 0, 40)])
    deep = np.array([(tissue.depth_um(*(c + offsets).T) > 15).all() for c in centers])
    cover, size = [], []
    for b in bins[deep]:
        mine = tumour.take((grid == b).all(1))
        cover.append((np.pi * mine.radius_um**2).sum() / 75**2)
        size.append(mine.radius_um.mean())
    cover, size = np.array(cover), np.array(size)
    assert size.max() > 1.5 * size.min()
    small, large = cover[size < np.median(size)].mean(), cover[size >= np.median(size)].mean()
    assert large / small == pytest.approx(1, abs=0.15)


@pytest.mark.parametrize("blank", [0.0, 0.3, 0.9])
def test_blank_fraction_is_kept_and_glass_is_bright_and_empty(blank: float) -> None:
    tissue = Anatomy(2, 800.0, blank)
    x, y = (a.ravel() for a in np.meshgrid(np.arange(4, 800, 8.0), np.arange(4, 800, 8.0)))
    margin = tissue.margin_um(x, y)
    assert (margin < 0).mean() == pytest.approx(blank, abs=0.03)
    cells = tissue.cells(0, 0, 800, 800)
    assert (tissue.margin_um(cells.x_um, cells.y_um) > 0).all()
    if blank:
        pixels = SlideImage(tissue, 2.0)[0:400, 0:400][(y / 2).astype(int), (x / 2).astype(int)]
        assert pixels[margin < -25].mean() > 235
        assert pixels[margin > 25].mean() < 225


def test_rates_add_up_over_units_and_follow_the_square() -> None:
    (specimen,) = make_specimens(slides=1, size_um=400.0, genes=12)

    def total(side_um: float) -> np.ndarray:
        layout = Layout("bin", side_um, side_um)
        centers, _ = layout.centers_um(400.0)
        inside = (np.abs(centers - 200) < 120).all(1)
        return sum(r.sum(0) for _, r in specimen.expected(centers[inside], layout, as_measured=False))

    np.testing.assert_allclose(total(2.0), total(16.0), rtol=1e-9)
    np.testing.assert_allclose(total(8.0), total(40.0), rtol=1e-9)


def test_measurement_is_shifted_by_10_to_20_um_and_truth_is_not() -> None:
    for specimen in make_specimens(slides=4, genes=4):
        shift = specimen.shift_um(*np.random.default_rng(0).uniform(0, 1500, (2, 500)))
        assert 10 < np.hypot(*shift.T).mean() < 20
    (specimen,) = make_specimens(slides=1, size_um=300.0, genes=10, blank_fraction=0.0)
    layout = Layout("bin", 4.0, 4.0)
    centers, _ = layout.centers_um(300.0)
    maps = []
    for as_measured in (False, True):
        image = np.zeros(len(centers))
        for index, rates in specimen.expected(centers, layout, as_measured=as_measured):
            image[index] = rates.sum(1)
        maps.append(image.reshape(75, 75) - image.mean())
    peak = np.fft.irfft2(np.conj(np.fft.rfft2(maps[0])) * np.fft.rfft2(maps[1]), s=(75, 75))
    dy, dx = np.unravel_index(peak.argmax(), peak.shape)
    found = (np.array([dx, dy]) + 37) % 75 - 37
    np.testing.assert_allclose(found * 4.0, specimen.shift_um(np.array([150.0]), np.array([150.0]))[0], atol=6)


def test_counts_follow_their_expectation_with_overdispersion() -> None:
    (specimen,) = make_specimens(slides=1, size_um=800.0, genes=10, blank_fraction=0.0, umi_per_um2=4.0)
    layout = Layout("bin", 20.0, 20.0)
    centers, _ = layout.centers_um(800.0)
    counts = np.asarray(specimen.count(centers, layout).todense())
    mean = np.zeros_like(counts)
    for index, rates in specimen.expected(centers, layout, as_measured=True):
        mean[index] = rates
    np.testing.assert_allclose(counts.sum(0), mean.sum(0), rtol=0.1)
    loud = mean > 20
    excess = ((counts[loud] - mean[loud]) ** 2 - mean[loud]) / mean[loud] ** 2
    # (1 + 0.1) · exp(0.25²) - 1: the genes' dispersion and the units' depth together
    assert excess.mean() == pytest.approx(0.171, abs=0.04)


def test_ambient_genes_know_nothing_of_the_tissue() -> None:
    (specimen,) = make_specimens(slides=1, size_um=400.0, genes=20, blank_fraction=0.5)
    layout = Layout("bin", 16.0, 16.0)
    centers, _ = layout.centers_um(400.0)
    rates = np.concatenate([r for _, r in specimen.expected(centers, layout, as_measured=True)])
    np.testing.assert_allclose(rates[:, -2:] - rates[0, -2:], 0, atol=1e-12)
    assert (rates[:, :-2].std(0) > 0.3 * rates[:, :-2].mean(0)).all()


def test_free_genes_are_not_a_sum_of_few_programs() -> None:
    spectra = {}
    for mixture in ("programs", "free"):
        (specimen,) = make_specimens(slides=1, size_um=800.0, genes=60, mixture=mixture)
        rates = specimen.expression.of_cells(specimen.cells())[:, :54]
        power = np.linalg.svd(rates / rates.std(0), compute_uv=False) ** 2
        spectra[mixture] = 1 - np.cumsum(power) / power.sum()
    assert spectra["programs"][17] < 1e-12  # 18 programs
    assert spectra["free"][17] > 0.03


def test_hidden_state_is_not_in_the_picture_or_the_cells() -> None:
    tissue, twin = Anatomy(9, 300.0, 0.1), Anatomy(9, 300.0, 0.1)
    twin._hidden = [Field(np.random.default_rng(77), f.length_um) for f in twin._hidden]
    np.testing.assert_array_equal(SlideImage(tissue, 1.0)[0:300, 0:300], SlideImage(twin, 1.0)[0:300, 0:300])
    assert (tissue.cells(0, 0, 300, 300).hidden[:, 0] != twin.cells(0, 0, 300, 300).hidden[:, 0]).all()


def test_a_third_to_a_half_is_invisible(difficulty: Difficulty) -> None:
    assert 0.3 <= difficulty.invisible_share <= 0.5


def test_colour_alone_reaches_at_most_half_of_the_oracle(difficulty: Difficulty) -> None:
    assert difficulty.oracle_pcc > 0.5
    assert difficulty.colour_pcc <= difficulty.oracle_pcc / 2
    assert difficulty.colour_pcc < difficulty.visible_pcc < difficulty.oracle_pcc


def test_layouts_parse_and_do_not_overlap() -> None:
    spots, bins = parse_layouts("spot:55:100, bin:8")
    assert (spots, bins) == (Layout("spot", 55, 100), Layout("bin", 8, 8))
    centers, _ = spots.centers_um(1000.0)
    distance = np.hypot(*(centers[:, None] - centers[None]).transpose(2, 0, 1)) + 1e9 * np.eye(len(centers))
    np.testing.assert_allclose(distance.min(1), 100)
    assert (centers.min() >= 27.5) & (centers.max() <= 972.5)
    assert len(bins.centers_um(1000.0)[0]) == 125**2


@pytest.mark.parametrize("text", ["", "spot:55", "bin:1", "spot:55:50", "hex:5", "bin:x", "bin:8,"])
def test_bad_layouts_are_reported(text: str) -> None:
    with pytest.raises(InputError, match="Write spot:DIAMETER:PITCH"):
        parse_layouts(text)


@pytest.mark.parametrize(
    ("bad", "words"),
    [
        ({"slides": 2}, "3 or more"),
        ({"mpp": 0.0}, "mpp"),
        ({"blank_fraction": 1.0}, "blank_fraction"),
        ({"genes": 1}, "genes"),
        ({"size_um": float("nan")}, "size_um"),
        ({"mixture": "soup"}, "mixture"),
        ({"truth": "some"}, "truth"),
    ],
)
def test_bad_input_is_a_sentence_before_anything_is_written(tmp_path: Path, bad: dict, words: str) -> None:
    with pytest.raises(InputError, match=words):
        make_phantom(tmp_path / "p", **bad)
    assert not (tmp_path / "p").exists()


def test_truth_of_all_slides_and_of_none(tmp_path: Path) -> None:
    small = {"slides": 3, "size_um": 120.0, "mpp": 2.0, "genes": 4, "units": "bin:40"}
    everywhere = read_manifest(make_phantom(tmp_path / "all", truth="all", **small) / "truth")
    assert [len(everywhere[s]) for s in ("training", "validation", "test")] == [1, 1, 1]
    assert not (make_phantom(tmp_path / "none", truth="none", **small) / "truth").exists()


def test_truth_window_bounds_its_size(tmp_path: Path) -> None:
    out = make_phantom(
        tmp_path / "w", slides=3, size_um=200.0, mpp=2.0, genes=4, units="bin:40", truth_um=60.0, blank_fraction=0.0
    )
    truth = read_units(out / "truth" / "units" / "P3_truth2.h5ad")
    assert len(truth) == 30**2
    assert isinstance(truth.counts, sp.csr_matrix)
