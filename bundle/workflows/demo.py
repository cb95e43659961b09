"""Try PixNet without data: make a phantom, train on it, score the model, predict a slide and write a report."""

from __future__ import annotations

import json
import logging
import time
from pathlib import Path

from ..datasets.phantom import make_phantom
from ..errors import require_extra
from ..files.ownership import claim
from ..report import write_picture, write_report
from . import evaluate, predict, train

__all__ = ["demo"]

logger = logging.getLogger(__name__)

#: Small enough for two cores and ten minutes; everything else is the default.
SETTINGS = {"max_epochs": 22, "val_interval": 11}
TRUTH_SCALES_UM = (8.0, 32.0, 128.0)


def demo(out: str | Path) -> Path:
    """Run the demo; run again, it goes on where it was stopped.

    Args:
        out: folder that gets `phantom/`, `run/`, `prediction.h5ad` and `picture.jpg`.

    Returns:
        The report.
    """
    require_extra("matplotlib", "The report", "report")  # before the training
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    out = claim(
        Path(out).resolve(),
        "demo",
        ("phantom", "run", "prediction.h5ad", "picture.jpg"),
        {"run/configs/train.json": "network_def"},
    )
    started = time.monotonic()

    def step(text: str) -> None:
        print(f"[{time.monotonic() - started:5.0f} s] {text}", flush=True)

    step("1/5 Generating four slides whose expression is known")
    phantom, run = out / "phantom", out / "run"
    if not (phantom / "truth" / "dataset.json").is_file():
        make_phantom(phantom, progress=lambda line: step("  " + line))
    step("2/5 Training on two of them, validating on the third")
    train(phantom, run, settings=SETTINGS)
    step("3/5 Scoring the fourth: measured spots, then the noise-free truth at 2 µm and coarser")
    measured = json.loads(evaluate(run).read_text())
    truth = json.loads(evaluate(run, phantom / "truth", scales_um=TRUTH_SCALES_UM, name="truth").read_text())
    step("4/5 Predicting 16 µm bins of the fourth slide")
    slide = json.loads((phantom / "dataset.json").read_text())["test"][0]["image"]
    predict(phantom / slide, out / "prediction.h5ad", run, {"bin_um": 16.0})
    step("5/5 Writing the report")
    report = write_report(run)
    write_picture(run, out / "prediction.h5ad", out / "picture.jpg")
    native = measured["scales"]["native"]
    print(f"\nPCC@M on {native['units']} measured spots: {native['PCC@M']:.3f} (ceiling {native['ceiling@M']:.3f})")
    for scale, figures in truth["scales"].items():
        at = figures["size_um"] if scale == "native" else float(scale)
        print(
            f"PCC@M against the noise-free truth at {at:g} µm: {figures['PCC@M']:.3f} ({figures['units']} grid squares)"
        )
    step(f"Done. Report: {report}")
    for name, path in (("Picture", "picture.jpg"), ("Prediction", "prediction.h5ad"), ("Run folder", "run")):
        print(f"         {name}: {out / path}")
    return report
