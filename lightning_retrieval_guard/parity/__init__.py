"""Parity: the same weights and data on one, two and more processes, and the numbers side by side.

1. ``options`` is what is asked, and finds the function that the user names.
2. ``check`` makes a run on each number of processes: ``pool`` keeps them, and each calls ``worker``.
3. ``compare`` says which keys differ and which findings explain it; ``render`` shows that as text and JSON.
"""

from lightning_retrieval_guard.parity.check import run_parity
from lightning_retrieval_guard.parity.options import Options, ParityError, build_options

__all__ = ["Options", "ParityError", "build_options", "run_parity"]
