"""Accuracy on tissue that a model has not seen, beside baselines, under one protocol."""
