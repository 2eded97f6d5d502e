"""What of the guard is left on classes and objects."""

from __future__ import annotations

import gc
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from torchmetrics import Metric
from torchmetrics.retrieval import RetrievalMRR

import lightning_retrieval_guard

PACKAGE = str(Path(lightning_retrieval_guard.__file__).parent)


def is_ours(value: Any) -> bool:
    """Whether a value is made by the guard's package; `functools.wraps` hides this from `__module__`."""
    if type(value) is types.MethodType:
        value = value.__func__
    if type(value) is types.FunctionType:
        return value.__code__.co_filename.startswith(PACKAGE)
    return str(type(value).__module__).startswith("lightning_retrieval_guard")


def is_guard(owner: Any) -> bool:
    """Whether it is the guard itself, which is the user's, or a part of it."""
    return is_ours(owner) or isinstance(owner, lightning_retrieval_guard.RetrievalGuard)


def marks_on(owner: Any) -> list[str]:
    """The attributes of a class or an object that are the guard's."""
    return [f"{owner!r}.{name}" for name, value in vars(owner).items() if is_ours(value)]


def owners_of(trainer: Any, module: Any) -> Iterator[Any]:
    """Everything that a patch could sit on."""
    yield Metric
    yield RetrievalMRR
    yield from module.modules()
    yield from trainer.callbacks
    yield trainer
    yield trainer.strategy
    yield from (value for name, value in vars(trainer).items() if name.endswith(("_loop", "_connector")))
    yield trainer.fit_loop.epoch_loop
    yield trainer.fit_loop.epoch_loop.val_loop
    yield from (thing for thing in gc.get_objects() if Metric in type(thing).__mro__)


def traces(trainer: Any, module: Any) -> list[str]:
    """The guard's attributes, and its parts that are still alive; the guard itself is the user's."""
    gc.collect()
    marks = [mark for owner in owners_of(trainer, module) for mark in marks_on(owner) if not is_guard(owner)]
    parts = [thing for thing in gc.get_objects() if type(thing).__name__ in ("Session", "MetricWatch", "LogWatch")]
    return marks + [repr(part) for part in parts if is_ours(part)]
