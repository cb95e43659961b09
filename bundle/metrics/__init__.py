"""Scoring: per gene within slides, at every spatial scale, across ranks."""

from .handler import EvaluationWriter, ExpressionMetricHandler
from .metric import ExpressionMetric, grouped
from .score import score_slide

__all__ = ["EvaluationWriter", "ExpressionMetric", "ExpressionMetricHandler", "grouped", "score_slide"]
