"""Counts collectives and waits for the device, told apart by whether a step runs and who asked."""

from __future__ import annotations

import contextlib
import functools
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from lightning.pytorch import Callback
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

COLLECTIVES = """
all_gather all_gather_coalesced all_gather_into_tensor all_gather_object all_reduce all_reduce_coalesced
all_to_all all_to_all_single barrier broadcast broadcast_object_list gather gather_object irecv isend
monitored_barrier recv reduce reduce_scatter reduce_scatter_tensor scatter scatter_object_list send
"""


class Step:
    """Whether a step, or an epoch of the validation, runs."""

    def __init__(self) -> None:
        self.in_step = self.in_epoch = False

    def around(self, *callbacks: Callback) -> list[Callback]:
        """Callbacks in an order in which a batch begins before any hears of it, and is over when all have."""
        begin, end = Callback(), Callback()
        for stage in ("validation", "test", "train"):
            setattr(begin, f"on_{stage}_batch_start", lambda *_: self._batch(True))
            setattr(end, f"on_{stage}_batch_end", lambda *_: self._batch(False))
        begin.on_validation_epoch_start = lambda *_: self._epoch(True)
        end.on_validation_end = lambda *_: self._epoch(False)
        return [begin, *callbacks, end]

    def _batch(self, runs: bool) -> None:
        self.in_step = runs

    def _epoch(self, runs: bool) -> None:
        self.in_epoch = runs


@dataclass
class Collectives:
    """The names of the collectives, in order."""

    theirs: list[str] = field(default_factory=list)
    ours: list[str] = field(default_factory=list)
    in_steps: list[str] = field(default_factory=list)
    in_epoch: list[str] = field(default_factory=list)

    @property
    def counts(self) -> dict[str, int]:
        """How many there were, in all and in steps."""
        return {"total": len(self.theirs) + len(self.ours), "step": len(self.in_steps)}


@contextlib.contextmanager
def counted_collectives(step: Step) -> Iterator[Collectives]:
    """Keep every call of a collective, on any group."""
    seen = Collectives()

    def counted(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(function)
        def call(*args: Any, **kwargs: Any) -> Any:
            caller = sys._getframe(1).f_globals["__name__"]
            (seen.ours if caller.startswith("lightning_retrieval_guard") else seen.theirs).append(name)
            seen.in_steps += [name] * step.in_step
            seen.in_epoch += [name] * step.in_epoch
            return function(*args, **kwargs)

        return call

    originals = {name: getattr(torch.distributed, name) for name in COLLECTIVES.split()}
    for name, original in originals.items():
        setattr(torch.distributed, name, counted(name, original))
    try:
        yield seen
    finally:
        for name, original in originals.items():
            setattr(torch.distributed, name, original)


class Waits(TorchDispatchMode):
    """Counts what waits for a device while a step runs: a scalar that is read, a copy to the host."""

    OPERATIONS = ("aten::_local_scalar_dense", "aten::_to_copy", "aten::equal", "aten::nonzero", "aten::_unique2")

    def __init__(self, step: Step) -> None:
        super().__init__()
        self.step = step
        self.counts: Counter[str] = Counter()

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = function._schema.name
        moves = name != "aten::_to_copy" or (kwargs or {}).get("device") is not None  # else only the dtype changes
        if self.step.in_step and name in self.OPERATIONS and moves:
            self.counts[name] += 1
        return function(*args, **(kwargs or {}))


# On the CPU these do not reach the dispatcher.
METHODS = ("tolist", "numpy", "cpu", "__array__")


@contextlib.contextmanager
def counted_waits(step: Step) -> Iterator[Counter[str]]:
    """Count operations and methods that would wait for a device."""
    waits, running = Waits(step), set[str]()

    def counted(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(function)
        def call(*args: Any, **kwargs: Any) -> Any:
            # under a mode the method comes back to what stands in the class
            if name in running:
                return function(*args, **kwargs)
            waits.counts[name] += step.in_step
            running.add(name)
            try:
                return function(*args, **kwargs)
            finally:
                running.discard(name)

        return call

    originals = {name: getattr(Tensor, name) for name in METHODS}
    before = {name: vars(Tensor).get(name) for name in METHODS}
    for name, original in originals.items():
        setattr(Tensor, name, counted(name, original))
    try:
        with waits:
            yield waits.counts
    finally:
        for name, original in before.items():
            delattr(Tensor, name) if original is None else setattr(Tensor, name, original)
