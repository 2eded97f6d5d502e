"""Parity: one target on several numbers of processes."""
