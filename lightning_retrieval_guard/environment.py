"""Adds a guard to every trainer, without touching code, where the environment asks for it."""

from __future__ import annotations

import os
from typing import get_args

from lightning_retrieval_guard.callback import RetrievalGuard
from lightning_retrieval_guard.settings import VARIABLE, Mode

__all__ = ["VARIABLE", "callbacks_from_environment"]


def callbacks_from_environment() -> list[RetrievalGuard]:
    """The guard that ``LIGHTNING_RETRIEVAL_GUARD`` asks for; Lightning calls this for every trainer.

    Raises:
        ValueError: The variable is set to something else than a mode.
    """
    mode = os.environ.get(VARIABLE, "")
    if not mode:
        return []
    if mode not in get_args(Mode):
        raise ValueError(f"{VARIABLE}={mode!r} is not one of {', '.join(get_args(Mode))}. Unset it to have no guard.")
    guard = RetrievalGuard(mode)  # type: ignore[arg-type]  # checked above
    guard.from_environment = True
    return [guard]
