"""Networks: tensors in, tensors out."""

from __future__ import annotations

from .decoder import Decoder
from .encoders import (
    BackboneEncoder,
    EfficientNetLiteEncoder,
    Encoder,
    KMeansPatchEncoder,
    SwinEncoder,
)
from .heads import Head, LinearHead, ProgramsHead
from .losses import ExpressionLoss
from .pixnet import ExpressionModel, PixNet, UnitExpression
from .pooling import pool_units, unit_offsets
from .ridge_branch import FrozenFeatures, RidgeBranch
from .safb import SAFB
from .swin_unetr import PlainSwinUNETR

__all__ = [
    "SAFB",
    "BackboneEncoder",
    "Decoder",
    "EfficientNetLiteEncoder",
    "Encoder",
    "ExpressionLoss",
    "ExpressionModel",
    "FrozenFeatures",
    "Head",
    "KMeansPatchEncoder",
    "LinearHead",
    "PixNet",
    "PlainSwinUNETR",
    "ProgramsHead",
    "RidgeBranch",
    "SwinEncoder",
    "UnitExpression",
    "pool_units",
    "unit_offsets",
]
