"""Rows kept once: metrics that are fed with the same tensors hold the same tensors afterwards.

What a metric holds stays a plain list of plain tensors, so everything that torchmetrics does with it goes on working.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from inspect import signature
from typing import Any

import torch
from torch import Tensor

from lightning_retrieval_guard import _compat
from lightning_retrieval_guard.watch.metric_lives import MetricRecord

_NAMES = ("preds", "target", "indexes")
_INT32 = torch.iinfo(torch.int32)


@dataclass(frozen=True)
class _Fed:
    """What an update was given, and the tensors that a metric keeps of it.

    The given tensors are held, so that no other tensor can take their place in memory.
    """

    given: tuple[Tensor, ...]
    versions: tuple[int, ...]
    ignored: int | None
    kept: tuple[Tensor, ...]


class SharedRowStore:
    """The rows of the batch at hand, for the metrics that are still to see them."""

    def __init__(self) -> None:
        self._fed: list[_Fed] = []
        # of the parameters of each update
        self._names: dict[Callable[..., Any], tuple[str, ...]] = {}

    def start_batch(self) -> None:
        """Forget what the last batch brought."""
        self._fed.clear()

    def take_in(self, metric: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> None:
        """Keep the rows of an update once, in at most 16 bytes a row.

        Args:
            metric: A retrieval metric that was just updated.
            args: The positional arguments of the update.
            kwargs: Its keyword arguments.
        """
        states = _compat.row_states(metric)
        if not states[0]:
            return
        given = self._given(metric, args, kwargs)
        added = tuple(column[-1] for column in states)
        kept = self._find(given, metric.ignore_index, added) if given is not None else None
        if kept is None:
            ids, preds, target = added
            kept = (ids, preds, _narrow(target, metric.allow_non_binary_target))
            if given is not None:
                self._fed.append(_Fed(given, _versions(given), metric.ignore_index, kept))
        for column, part in zip(states, kept, strict=True):
            column[-1] = part

    def _given(self, metric: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> tuple[Tensor, ...] | None:
        """Scores, relevance and ids as the program gave them; ``None`` where its update is another one."""
        update = type(metric).update
        if update not in self._names:  # binding the arguments each time would take longer than the update
            self._names[update] = tuple(signature(update).parameters)[1:]
        named = {**dict(zip(self._names[update], args, strict=False)), **kwargs}
        found = tuple(named.get(name) for name in _NAMES)
        return found if all(isinstance(part, Tensor) for part in found) else None  # type: ignore[return-value]

    def _find(
        self, given: tuple[Tensor, ...], ignored: int | None, added: tuple[Tensor, ...]
    ) -> tuple[Tensor, ...] | None:
        for fed in reversed(self._fed):
            same = all(one is other for one, other in zip(fed.given, given, strict=True))
            if same and fed.ignored == ignored and _versions(given) == fed.versions and _hold_the_same(added, fed.kept):
                return fed.kept
        return None


def may_look(tensor: Tensor) -> bool:
    """Whether looking into a tensor waits for nothing."""
    return tensor.device.type == "cpu"


def _versions(given: Sequence[Tensor]) -> tuple[int, ...]:
    """How often each tensor was written to; inference tensors do not count that."""
    return tuple(-1 if part.is_inference() else _compat.writes_to(part) for part in given)


def _hold_the_same(added: Sequence[Tensor], kept: Sequence[Tensor]) -> bool:
    """Whether two metrics hold the same of the same given tensors.

    The very same memory needs no look, nor do tensors that count how often they were written to. Otherwise a look
    tells, where it does not mean to wait for a device.
    """
    return all(_is_same(one, other) for one, other in zip(added, kept, strict=True))


def _is_same(one: Tensor, other: Tensor) -> bool:
    if one.shape != other.shape or one.device != other.device or one.is_floating_point() != other.is_floating_point():
        return False
    if not one.is_inference() or (one.data_ptr() == other.data_ptr() and one.dtype == other.dtype):
        return True
    return may_look(one) and torch.equal(one.to(other.dtype), other)


def _narrow(target: Tensor, graded: bool) -> Tensor:
    """Relevance in four bytes a row, where that is certain to hold every value."""
    if target.dtype is not torch.int64 or not target.numel():
        return target
    if graded and (not may_look(target) or not _INT32.min <= int(target.min()) <= int(target.max()) <= _INT32.max):
        return target
    return target.int()


def give_back(metrics: Iterable[Any]) -> None:
    """Give relevance the dtype that torchmetrics keeps it in; tensors that metrics share stay shared."""
    wide: dict[int, tuple[Tensor, Tensor]] = {}
    for metric in metrics:
        column = _compat.row_states(metric)[2]
        for place, part in enumerate(column):
            if part.dtype is torch.int32:
                column[place] = wide.setdefault(id(part), (part, part.long()))[1]


def settle(metric: Any, record: MetricRecord, device: torch.device) -> None:
    """Move to the metric's device what came since the last time, in place of all rows in every call."""
    states = _compat.row_states(metric)
    known, moved = record.settled
    start = moved if known == id(states[0]) and moved <= len(states[0]) else 0
    for column in states:
        for place in range(start, len(column)):
            column[place] = column[place].to(device)
    record.settled = (id(states[0]), len(states[0]))
