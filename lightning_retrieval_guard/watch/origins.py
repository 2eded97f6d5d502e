"""Where the tensors that a program holds came from: which metric, and what it did."""

from __future__ import annotations

import weakref
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Literal

from torch import Tensor

from lightning_retrieval_guard import _compat
from lightning_retrieval_guard.watch.metric_lives import MetricLife, MetricRecord

How = Literal["compute", "forward"]


@dataclass(frozen=True, slots=True)
class Origin:
    """Where a tensor came from: a metric, what made it, and the life and the update of the metric behind it."""

    record: MetricRecord
    how: How
    synced: bool
    life: MetricLife | None
    update: int = 0
    program_value: Any = None


class Origins:
    """The tensors that came out of metrics, as long as they live."""

    def __init__(self) -> None:
        self._origins: dict[int, tuple[weakref.ref[Tensor], Origin, Tensor | int]] = {}

    def of(self, tensor: Tensor) -> tuple[Origin | None, Tensor | bool]:
        """Where a tensor came from, as long as it is the same tensor, and whether it was written to since."""
        entry = self._origins.get(id(tensor))
        # the id of a tensor that is gone may come again
        if entry is None or entry[0]() is not tensor:
            return None, False
        _, origin, then = entry
        # a comparison stays on the device: reading it would wait
        return origin, _differ(tensor, then) if isinstance(then, Tensor) else _compat.count_of_writes(tensor) != then

    def remember(self, value: Any, origin: Origin) -> None:
        """All tensors in a value came from there."""
        for tensor in tensors_in(value):
            self._remember(tensor, origin)

    def clear(self) -> None:
        """Forget all of them."""
        self._origins.clear()

    def _remember(self, tensor: Tensor, origin: Origin) -> None:
        key = id(tensor)
        origins = self._origins

        def forget(reference: weakref.ref[Tensor]) -> None:
            if origins.get(key, (None,))[0] is reference:
                del origins[key]

        writes = _compat.count_of_writes(tensor)
        origins[key] = (weakref.ref(tensor, forget), origin, tensor.detach().clone() if writes is None else writes)


def _differ(one: Tensor, other: Tensor) -> Tensor:
    return ((one != other) & ~(one.isnan() & other.isnan())).any()


def tensors_in(value: Any) -> Iterator[Tensor]:
    """The tensors in nested dictionaries, lists and tuples."""
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, dict):
        yield from _in_each(value.values())
    elif isinstance(value, (list, tuple)):
        yield from _in_each(value)


def _in_each(values: Iterable[Any]) -> Iterator[Tensor]:
    for value in values:
        yield from tensors_in(value)
