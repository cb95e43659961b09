"""Train, evaluate, predict: each merges a few keys into a configuration and runs it."""
