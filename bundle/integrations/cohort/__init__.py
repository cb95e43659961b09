"""Many slides at once: a table of slides, predicted by the workers of a dask cluster."""

from .run import predict_cohort
from .slides import CohortSlide, read_cohort
from .summary import Result

__all__ = ["CohortSlide", "Result", "predict_cohort", "read_cohort"]
