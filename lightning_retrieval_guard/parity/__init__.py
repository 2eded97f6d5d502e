"""Parity: the same weights and data on one, two and more processes, and the numbers side by side."""

from lightning_retrieval_guard.parity.check import run_parity
from lightning_retrieval_guard.parity.options import Options, ParityError, build_options

__all__ = ["Options", "ParityError", "build_options", "run_parity"]
