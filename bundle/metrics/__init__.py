"""Scoring: per gene within slides, at every spatial scale, across ranks."""

from .coverage import coverage_95
from .handler import EvaluationWriter, ExpressionMetricHandler
from .metric import ExpressionMetric, grouped
from .score import score_slide
from .summary import ScoredSlide, gene_table, summarise

__all__ = [
    "EvaluationWriter",
    "ExpressionMetric",
    "ExpressionMetricHandler",
    "ScoredSlide",
    "coverage_95",
    "gene_table",
    "grouped",
    "score_slide",
    "summarise",
]
