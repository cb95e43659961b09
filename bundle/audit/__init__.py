"""The audit: any tool's predictions, scored as PixNet's own are."""

from .run import audit

__all__ = ["audit"]
