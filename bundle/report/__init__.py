"""The report of a run: one HTML file that opens offline, and one picture."""

from .page import write_report
from .picture import write_picture

__all__ = ["write_picture", "write_report"]
