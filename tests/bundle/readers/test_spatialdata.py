"""SpatialData zarr in the layout of spatialdata 0.7, written here with zarr and pyarrow alone."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import anndata as ad
import numpy as np
import pandas as pd
import pytest
import shapely
import zarr

from bundle.data.manifest import read_manifest
from bundle.data.read_units import read_units
from bundle.errors import InputError
from bundle.importing import prepare
from bundle.readers import recognise

pytest.importorskip("pyarrow")


def axes(names: str) -> list[dict[str, str]]:
    return [{"name": name, "type": "channel" if name == "c" else "space"} for name in names]


def to(system: str, names: str, **what: object) -> dict[str, object]:
    return {"input": {"axes": axes(names)}, "output": {"name": system, "axes": axes(names)}, **what}


@pytest.fixture
def store(tmp_path: Path, specimen) -> Callable[..., Path]:
    """Writes a zarr whose coordinate system is micrometres; `version` is that of the OME-Zarr."""

    def write(kind: str = "circles", version: str = "0.5", step: float | None = None) -> Path:
        step = specimen.mpp if step is None else step
        path = tmp_path / "sample.zarr"
        form = 3 if version == "0.5" else 2
        root = zarr.open_group(path, mode="w", zarr_format=form)
        picture = specimen.picture.transpose(2, 0, 1)
        image = root.create_group("images").create_group("he")
        for level in (0, 1):
            part = np.ascontiguousarray(picture[:, :: 2**level, :: 2**level])
            array = image.create_array(f"s{level}", shape=part.shape, dtype="uint8", chunks=(3, 256, 256))
            array[:] = part
        turn = {"type": "affine", "affine": [[1, 0, 0, 0], [0, 0, step, 50], [0, step, 0, 30]]}  # x and y change places
        multiscales = [
            {
                "axes": axes("cyx"),
                "datasets": [{"path": "s0"}, {"path": "s1"}],
                "coordinateTransformations": [to("global", "cyx", **turn)],
            }
        ]
        image.attrs.update({"ome": {"multiscales": multiscales}} if version == "0.5" else {"multiscales": multiscales})
        grey = root["images"].create_group("dapi")
        grey.create_array("s0", shape=(1, 64, 64), dtype="uint16")
        grey.attrs.update({"multiscales": [{"axes": axes("cyx"), "datasets": [{"path": "s0"}]}]})
        rng = np.random.default_rng(1)
        at = rng.uniform((100, 100), (specimen.width_px - 100, specimen.height_px - 100), (900, 2))
        at = at[specimen.amount(at) > 0][:150]
        # px → system: y_system = x_px * step + 50 and x_system = y_px * step + 30
        in_system = np.column_stack([at[:, 1] * step + 30, at[:, 0] * step + 50])
        table = pd.DataFrame(index=pd.Index([f"s{i}" for i in range(150)]))
        if kind == "circles":
            table["geometry"], table["radius"] = shapely.to_wkb(shapely.points(in_system)), 20.0
        elif kind == "squares":
            low, high = in_system - 10, in_system + 10
            table["geometry"] = shapely.to_wkb(shapely.box(*low.T, *high.T))
        else:
            table["geometry"] = shapely.to_wkb(shapely.buffer(shapely.points(in_system), 12))
        folder = path / "shapes" / "units"
        root.create_group("shapes").create_group("units").attrs.update(
            {"axes": ["x", "y"], "coordinateTransformations": [to("global", "xy", type="identity")]}
        )
        table.sample(frac=1, random_state=0).to_parquet(folder / "shapes.parquet")
        root.create_group("tables")
        obs = pd.DataFrame(
            {"region": pd.Categorical(["units"] * 150), "instance": table.index.to_numpy()},
            index=[f"b{i}" for i in range(150)],
        )
        adata = ad.AnnData(
            specimen.counts(at).astype(np.float32), obs=obs, var=pd.DataFrame(index=list("ABCDEFGHIJKLMNOPQRST"))
        )
        adata.uns["spatialdata_attrs"] = {"region": "units", "region_key": "region", "instance_key": "instance"}
        adata.write_zarr(path / "tables" / "table")
        write.at = at
        return path

    return write


@pytest.mark.parametrize(
    ("kind", "shape", "size_um"), [("circles", "circle", 40.0), ("squares", "square", 20.0), ("cells", "polygon", 23.9)]
)
@pytest.mark.parametrize("version", ["0.4", "0.5"])
def test_shapes_meet_the_picture_in_a_coordinate_system(store, tmp_path, specimen, kind, shape, size_um, version):
    src = store(kind, version)
    assert recognise(src) == "spatialdata"
    prepare(src, tmp_path / "out", unit_um=1, strict=True)
    (record,) = read_manifest(tmp_path / "out")["training"]
    units = read_units(record["label"][0])
    assert units.shape == shape
    assert units.size_um == pytest.approx(size_um, rel=0.01)
    assert record["mpp"] == pytest.approx(specimen.mpp)
    np.testing.assert_allclose(units.centers_px, store.at, atol=0.01)
    assert list(units.barcodes) == [f"b{i}" for i in range(150)]


def test_what_a_step_means_must_be_said_and_may_be_pixels(store, tmp_path, specimen):
    src = store(step=1.0)
    with pytest.raises(InputError, match=r"does not say what a step of its coordinate system"):
        prepare(src, tmp_path / "out")
    prepare(src, tmp_path / "out", mpp=specimen.mpp)
    units = read_units(read_manifest(tmp_path / "out")["training"][0]["label"][0])
    assert units.size_um == pytest.approx(40 * specimen.mpp)


def test_several_regions_of_one_table_are_units_apart(store, tmp_path, specimen):
    src = store("squares")
    adata = ad.read_zarr(src / "tables" / "table")
    shutil.copytree(src / "shapes" / "units", src / "shapes" / "others")
    path = src / "shapes" / "others" / "shapes.parquet"
    table = pd.read_parquet(path)
    table["geometry"] = shapely.to_wkb(shapely.buffer(shapely.centroid(shapely.from_wkb(table["geometry"])), 30))
    table.to_parquet(path)
    adata.obs["region"] = pd.Categorical(np.where(np.arange(150) < 50, "others", "units"))
    shutil.rmtree(src / "tables" / "table")
    adata.write_zarr(src / "tables" / "table")
    prepare(src, tmp_path / "out", unit_um=1)
    held = [read_units(label) for label in read_manifest(tmp_path / "out")["training"][0]["label"]]
    assert {u.shape: len(u) for u in held} == {"polygon": 50, "square": 100}
    for units in held:
        number = [int(name[1:]) for name in units.barcodes]
        np.testing.assert_allclose(units.centers_px, store.at[number], atol=0.05)


def test_shapes_that_a_table_names_and_are_not_there_are_reported(store, tmp_path):
    src = store()
    path = src / "shapes" / "units" / "shapes.parquet"
    pd.read_parquet(path).iloc[:100].to_parquet(path)
    with pytest.raises(InputError, match="lacks 50 of the 150 shapes"):
        prepare(src, tmp_path / "out", unit_um=1)
