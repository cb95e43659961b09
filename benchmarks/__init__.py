"""What can be run to measure PixNet and what it is compared with: `python -m benchmarks.<name>`."""
