"""The workflow's parts: data sets, metrics, inference, importers, the report and the command line."""

from . import commands, inference, metrics, panel, units
from .averaging import WeightAverage
from .cells import is_cells, read_cells
from .crops import CropDataset, SlideDataset, collate_units, take_one
from .errors import InputError
from .handlers import BestModel, EpochSeed, MetricsCsv, RunFolder, SaveCheckpoint
from .inference import (
    MapInferer,
    PredictionDataset,
    PredictionWriter,
    SlideInferer,
    UnitInferer,
    expression_of,
    model_sha256,
    open_map,
    prepare_crops,
    prepare_slide,
    unit_grids,
)
from .manifest import read_manifest, read_split, slide_records
from .metrics import EvaluationWriter, ExpressionMetric, ExpressionMetricHandler
from .panel import GenePanel, extend_panel, fit_panel, load_panel, n_genes
from .texture import fit_texture
from .tissue import stain_of_slides
from .tracking import MLFlowTracking
from .unit_loss import UnitLoss
from .units import Units, build_units, read_units, units_table
from .weights import LoadCheckpoint, load_weights, read_weights

__all__ = [
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
    "RunFolder",
    "SaveCheckpoint",
    "SlideDataset",
    "SlideInferer",
    "UnitInferer",
    "UnitLoss",
    "Units",
    "WeightAverage",
    "build_units",
    "collate_units",
    "commands",
    "expression_of",
    "extend_panel",
    "fit_panel",
    "fit_texture",
    "inference",
    "is_cells",
    "load_panel",
    "load_weights",
    "metrics",
    "model_sha256",
    "n_genes",
    "open_map",
    "panel",
    "prepare_crops",
    "prepare_slide",
    "read_cells",
    "read_manifest",
    "read_split",
    "read_units",
    "read_weights",
    "slide_records",
    "stain_of_slides",
    "take_one",
    "unit_grids",
    "units",
    "units_table",
]
