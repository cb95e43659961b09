"""The workflow's parts: data sets, metrics, inference, importers, the report and the command line."""

from . import inference, metrics
from .data.build_units import build_units
from .data.cells import is_cells, read_cells
from .data.collate import collate_units, take_one
from .data.crop_dataset import CropDataset
from .data.fit_panel import extend_panel, fit_panel
from .data.manifest import read_manifest, read_split, slide_records
from .data.panel import GenePanel, load_panel, n_genes
from .data.read_units import read_units
from .data.slide_dataset import SlideDataset
from .data.tissue import stain_of_slides
from .data.units import Units, units_table
from .errors import InputError
from .inference import (
    MapInferer,
    PredictionDataset,
    SlideInferer,
    UnitInferer,
    expression_of,
    model_sha256,
    open_map,
    prepare_crops,
    prepare_slide,
    unit_grids,
)
from .metrics import EvaluationWriter, ExpressionMetric, ExpressionMetricHandler
from .training.best_model import BestModel
from .training.checkpoint import SaveCheckpoint
from .training.ema import EMA
from .training.epoch_seed import EpochSeed
from .training.head_start import start_head
from .training.metrics_csv import MetricsCsv
from .training.ridge_fit import RidgeFit, fit_ridge
from .training.run_folder import RunFolder
from .training.tracking import MLFlowTracking
from .training.unit_loss import UnitLoss
from .training.weights import LoadCheckpoint, load_weights, read_weights
from .writers.prediction import PredictionWriter

__all__ = [
    "EMA",
    "BestModel",
    "CropDataset",
    "EpochSeed",
    "EvaluationWriter",
    "ExpressionMetric",
    "ExpressionMetricHandler",
    "GenePanel",
    "InputError",
    "LoadCheckpoint",
    "MLFlowTracking",
    "MapInferer",
    "MetricsCsv",
    "PredictionDataset",
    "PredictionWriter",
    "RidgeFit",
    "RunFolder",
    "SaveCheckpoint",
    "SlideDataset",
    "SlideInferer",
    "UnitInferer",
    "UnitLoss",
    "Units",
    "build_units",
    "collate_units",
    "expression_of",
    "extend_panel",
    "fit_panel",
    "fit_ridge",
    "inference",
    "is_cells",
    "load_panel",
    "load_weights",
    "metrics",
    "model_sha256",
    "n_genes",
    "open_map",
    "prepare_crops",
    "prepare_slide",
    "read_cells",
    "read_manifest",
    "read_split",
    "read_units",
    "read_weights",
    "slide_records",
    "stain_of_slides",
    "start_head",
    "take_one",
    "unit_grids",
    "units_table",
]
