"""Rows and measures: grouping rows into queries, and scoring them. Knows nothing of processes."""
