"""Measure PixNet and what it is compared with: `python -m benchmarks.<name>`."""
