"""The `pixnet` command: a thin, typed front for the configurations."""
