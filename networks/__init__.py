"""Networks: tensors in, tensors out."""

from __future__ import annotations

from .decoder import Decoder
from .encoders import (
    BackboneEncoder,
    EfficientNetLiteEncoder,
    Encoder,
    PatchDictionaryEncoder,
    SwinEncoder,
)
from .heads import Head, LinearHead, ProgramsHead
from .losses import ExpressionLoss
from .pixnet import ExpressionModel, PixNet, UnitExpression
from .pooling import pool_units, unit_offsets
from .safb import SAFB
from .swin_unetr import PlainSwinUNETR
from .texture import FrozenFeatures, TextureExpert

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
    "PatchDictionaryEncoder",
    "PixNet",
    "PlainSwinUNETR",
    "ProgramsHead",
    "SwinEncoder",
    "TextureExpert",
    "UnitExpression",
    "pool_units",
    "unit_offsets",
]
