"""Scoring: rows in, values out. Knows nothing of epochs and processes."""
