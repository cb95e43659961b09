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
from .safb import SAFB
from .swin_unetr import PlainSwinUNETR
from .ridge import FrozenFeatures, RidgeBranch

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
    "LinearHead",
    "KMeansPatchEncoder",
    "PixNet",
    "PlainSwinUNETR",
    "ProgramsHead",
    "SwinEncoder",
    "RidgeBranch",
    "UnitExpression",
    "pool_units",
    "unit_offsets",
]
