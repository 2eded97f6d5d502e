"""One program in this process: what it shows, and what the guard finds and says."""

from __future__ import annotations

from typing import Any

from lightning_retrieval_guard import RetrievalGuard
from tests.distributed.evaluate import recorded_warnings
from tests.distributed.ranks import Shown, shown_by

from .programs import make_trainer


def alone(module: Any, *callbacks: Any, method: str = "validate", **options: Any) -> Shown:
    """What one process shows, without a word."""
    trainer, guard = make_trainer(*callbacks, **options), [one for one in callbacks if isinstance(one, RetrievalGuard)]
    with recorded_warnings() as warned:
        getattr(trainer, method)(module)
    return shown_by(trainer, guard, warned, {})
