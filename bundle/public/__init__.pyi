from . import bundle, networks, transforms
from .bundle.audit import audit
from .bundle.data.build_units import build_units
from .bundle.data.cells import read_cells
from .bundle.data.manifest import read_manifest
from .bundle.data.panel import GenePanel, load_panel
from .bundle.data.read_units import read_units
from .bundle.data.units import Units, unmeasured_units
from .bundle.datasets.phantom import make_phantom
from .bundle.errors import InputError
from .bundle.importing import inspect, prepare
from .bundle.inference import DenseMap, compute_map, express, expression_of, open_map, pool
from .bundle.integrations.bundle_zip import export_bundle
from .bundle.integrations.cohort import predict_cohort
from .bundle.integrations.onnx_file import export_onnx
from .bundle.report import write_report
from .bundle.version import bundle_version
from .bundle.workflows import evaluate, load_network, predict, train

__all__ = [
    "DenseMap",
    "GenePanel",
    "InputError",
    "Units",
    "audit",
    "build_units",
    "bundle",
    "bundle_version",
    "compute_map",
    "evaluate",
    "export_bundle",
    "export_onnx",
    "express",
    "expression_of",
    "inspect",
    "load_network",
    "load_panel",
    "make_phantom",
    "networks",
    "open_map",
    "pool",
    "predict",
    "predict_cohort",
    "prepare",
    "read_cells",
    "read_manifest",
    "read_units",
    "train",
    "transforms",
    "unmeasured_units",
    "write_report",
]
