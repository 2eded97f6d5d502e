"""Counts collectives and the bytes that a rank hands to them, by the phase of the run they fall into."""

from __future__ import annotations

import contextlib
import functools
import inspect
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import torch.distributed as dist
from torch import Tensor
from torch.distributed import distributed_c10d

# What a rank sends, by the name of the parameter; a barrier sends nothing. The functions for objects are made of these.
SENT = {
    "all_gather": "tensor",
    "all_gather_into_tensor": "input_tensor",
    "all_reduce": "tensor",
    "all_to_all": "input_tensor_list",
    "all_to_all_single": "input",
    "barrier": "",
    "broadcast": "tensor",
    "gather": "tensor",
    "monitored_barrier": "",
    "reduce": "tensor",
    "reduce_scatter": "input_list",
    "reduce_scatter_tensor": "input",
    "scatter": "scatter_list",
    "send": "tensor",
}
MODULES = (dist, distributed_c10d)


@dataclass
class Meter:
    """What was called in each phase.

    Attributes:
        phase: Where the run is; the caller sets it.
        calls: Phase, name and bytes of every call, in order.
    """

    phase: str = "outside"
    calls: list[tuple[str, str, int]] = field(default_factory=list)

    def names(self, phase: str) -> list[str]:
        return [name for at, name, _ in self.calls if at == phase]

    def sent(self, phase: str) -> int:
        return sum(size for at, _, size in self.calls if at == phase)


@contextlib.contextmanager
def metered(meter: Meter) -> Iterator[None]:
    """Tell the meter of every call of a collective on any group."""
    before = [(module, name, getattr(module, name)) for module in MODULES for name in SENT]
    wrapped = {name: _counted(name, function, meter) for _, name, function in before}
    for module, name, _ in before:
        setattr(module, name, wrapped[name])
    try:
        yield
    finally:
        for module, name, function in before:
            setattr(module, name, function)


def _counted(name: str, function: Callable[..., Any], meter: Meter) -> Callable[..., Any]:
    signature = inspect.signature(function)

    @functools.wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        sent = signature.bind(*args, **kwargs).arguments.get(SENT[name])
        meter.calls.append((meter.phase, name, _bytes(sent)))
        return function(*args, **kwargs)

    return call


def _bytes(sent: Tensor | list[Tensor] | None) -> int:
    parts = [sent] if isinstance(sent, Tensor) else sent or []
    return sum(part.numel() * part.element_size() for part in parts)
