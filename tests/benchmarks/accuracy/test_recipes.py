from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from monai.bundle import ConfigParser

from benchmarks.accuracy.recipes import Recipe, read_table
from bundle.config.merge import merge_config
from bundle.config.root import bundle_root
from bundle.errors import InputError

pytest.importorskip("efficientnet_lite_pytorch", reason="the extra `encoders` is not installed")


@pytest.mark.parametrize("recipe", read_table().recipes.values(), ids=lambda r: r.name)
def test_a_recipe_names_keys_that_exist_and_a_network_that_takes_its_crops(recipe: Recipe) -> None:
    root = bundle_root()
    config = merge_config([root / "configs" / "train.json", *recipe.files()], recipe.set)
    merge_config([root / "configs" / "evaluate.json"], recipe.predict)
    parts = {key: config[key] for key in ("network_def", "head", "n_programs", "intensity")}
    net = ConfigParser({**parts, "n_genes": 5}).get_parsed_content("network_def")
    assert config["crop_px"] % net.grid_px == 0  # else a training crop is filled up with what no slide has
    with torch.no_grad():
        assert net.eval().features(torch.zeros(1, 3, net.grid_px, net.grid_px)).shape[1] == net.channels


def test_the_reference_is_a_recipe() -> None:
    table = read_table()
    assert table.reference in table.recipes


def test_a_bad_table_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "t.json"
    base = {"min_total": 1, "reference": "a"}
    for recipe, message in (
        ({"set": {}}, "why"),
        ({"why": "", "sets": {}}, "why"),
        ({"why": "", "configs": ["x.json"]}, "x.json"),
    ):
        path.write_text(json.dumps({**base, "recipes": {"a": recipe}}))
        with pytest.raises(InputError, match=message):
            read_table(path)
    with pytest.raises(InputError, match="cannot be read"):
        read_table(tmp_path / "absent.json")
    with pytest.raises(InputError, match="no recipe absent"):
        read_table().of("final", ["absent"])
