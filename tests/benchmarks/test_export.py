from __future__ import annotations

import json
import sys

import pytest

from benchmarks.export import main


def test_without_its_packages_onnx_is_named_and_torchscript_measured(tiny_run, tmp_path, monkeypatch, capsys) -> None:
    monkeypatch.setitem(sys.modules, "onnx", None)
    result = main(["--quick", "--model", str(tiny_run), "--work", str(tmp_path), "--threads", "1"])
    said = capsys.readouterr().out
    assert "ONNX was not measured: onnx is not installed" in said
    assert ".[onnx]" in said
    assert not {key for key in result if key.startswith("onnx")}
    assert result["torchscript_diff_of_range"] < 1e-4
    assert result["torchscript_speed"] > 0
    assert json.loads(said.splitlines()[-1]).keys() == result.keys()


def test_onnx_is_compared(tiny_run, tmp_path, capsys) -> None:
    for package in ("onnx", "onnxscript", "onnxruntime"):
        pytest.importorskip(package, reason="the extra `onnx` is not installed")
    result = main(["--quick", "--model", str(tiny_run), "--work", str(tmp_path), "--threads", "1"])
    assert 0 < result["onnx_diff_of_range"] < 1e-4
