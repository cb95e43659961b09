"""A gene that a slide's table lacks was not measured there, which stops neither scoring nor fine-tuning."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from pathlib import Path

import anndata as ad
import numpy as np
import pandas as pd
import pytest
import torch

from bundle import config
from bundle.cli.main import main
from bundle.data.panel import load_panel


@pytest.fixture
def dataset(phantom, tmp_path) -> Path:
    """A copy to spoil: P1 trains, P2 validates, P3 tests."""
    return Path(shutil.copytree(phantom, tmp_path / "dataset"))


def rename(path: Path, genes: Sequence[str]) -> None:
    """Let a file have measured something else in the place of genes, so that totals stay."""
    adata = ad.read_h5ad(path)
    adata.var_names = [f"not {name}" if name in genes else name for name in adata.var_names]
    adata.write_h5ad(path)


def test_a_new_slide_that_lacks_a_gene_is_scored_on_the_others(tiny_run, dataset, tmp_path, capsys):
    run = Path(shutil.copytree(tiny_run, tmp_path / "run"))
    lacks = load_panel(run / "models" / "panel.json").genes[0]
    command = ["evaluate", str(run), "--dataset", str(dataset), "--name"]
    assert main([*command, "whole"]) == 0
    rename(dataset / "units" / "P3_spot55.h5ad", [lacks])
    assert main([*command, "partly"]) == 0
    assert "P3_spot55.h5ad lacks 1 of the" in capsys.readouterr().out
    whole, partly = (run / "evaluation" / name for name in ("whole", "partly"))
    tables = [pd.read_csv(f"{path}_genes.csv").set_index("gene")["pcc_native"] for path in (whole, partly)]
    pd.testing.assert_series_equal(*(table.drop(lacks) for table in tables))
    assert np.isnan(tables[1][lacks])
    figures = [json.loads(path.with_suffix(".json").read_text())["scales"]["native"] for path in (whole, partly)]
    assert [f["unmeasured_genes"] for f in figures] == [0, 1]
    assert main(["report", str(run)]) == 0


def test_fine_tuning_learns_nothing_from_genes_that_were_not_measured(tiny_run, dataset, tmp_path, capsys):
    genes = load_panel(tiny_run / "models" / "panel.json").genes
    table = dataset / "units" / "P1_spot55.h5ad"
    rename(table, genes[::2])
    configs = ["--config", str(tiny_run / "configs" / "recipe.json")]
    configs += ["--config", str(config.bundle_root() / "configs" / "fine_tune.json")]
    keys = ["--set", f"start_from={tiny_run}", "--set", "max_epochs=1", "--set", "val_interval=1"]

    def tuned(name: str) -> dict[str, torch.Tensor]:
        assert main(["train", str(dataset), str(tmp_path / name), *configs, *keys]) == 0
        assert f"PixNet learns the other {len(genes) // 2}" in capsys.readouterr().out
        assert np.isfinite(pd.read_csv(tmp_path / name / "metrics.csv")["loss"]).all()
        return torch.load(tmp_path / name / "models" / "model.pt", weights_only=True)

    def exchange(columns: list[int]) -> None:
        """Give the units' counts in some columns to the next of these columns: no unit's total changes."""
        adata = ad.read_h5ad(table)
        counts = adata.X.toarray()
        counts[:, columns] = counts[:, np.roll(columns, 1)]
        adata.X = type(adata.X)(counts)
        adata.write_h5ad(table)

    start = torch.load(tiny_run / "models" / "model.pt", weights_only=True)
    names = list(ad.read_h5ad(table).var_names)
    first = tuned("first")
    for key in ("head.weight.weight", "head.weight.bias"):  # a row a gene: those of genes without a count stay
        assert torch.equal(first[key][::2], start[key][::2])
        assert not torch.equal(first[key][1::2], start[key][1::2])
    exchange([number for number, name in enumerate(names) if name.startswith("not ")])
    second = tuned("second")
    assert all(torch.equal(first[key], second[key]) for key in first)
    exchange([names.index(name) for name in genes[1::2]])
    third = tuned("third")
    assert any(not torch.equal(first[key], third[key]) for key in first)
