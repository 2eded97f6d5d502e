"""A block that silences rules, away from the programs: a file that names one may ignore rules at any of its calls."""

from __future__ import annotations

from contextlib import AbstractContextManager

from lightning_retrieval_guard import RetrievalGuard


def quiet(guard: RetrievalGuard, *codes: str) -> AbstractContextManager[None]:
    """What the guard's own block does."""
    return guard.ignore(*codes)
