from .run import predict_cohort
from .slides import CohortSlide, read_cohort
from .summary import Result

__all__ = ["CohortSlide", "Result", "predict_cohort", "read_cohort"]
