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
from lightning_retrieval_guard.observe.segments import MetricRecord, Segment
from lightning_retrieval_guard.retrieval.digest import digest_rows
from lightning_retrieval_guard.retrieval.measures import measure_of

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


class RowStore:
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


def digest_segments(segments: Sequence[Segment], is_final: Callable[[Any, bool], bool]) -> None:
    """Keep of segments that are over only what can still matter.

    Rows that several of them share are looked at once. Rows on another device than the CPU stay, because counting
    them would wait for the device.

    Args:
        segments: The segments.
        is_final: Whether the queries of an update of a metric are complete; it is told if the update is the only one.
    """
    shared: dict[tuple[int, ...], list[tuple[Segment, int]]] = {}
    for segment in segments:
        for update, rows in enumerate(zip(*segment.states(), strict=True)):
            if all(map(may_look, rows)):
                shared.setdefault(tuple(map(id, rows)), []).append((segment, update))
    for holders in shared.values():
        _digest(holders, is_final)


def _digest(holders: Sequence[tuple[Segment, int]], is_final: Callable[[Any, bool], bool]) -> None:
    metrics = [segment.metric for segment, _ in holders]
    measures = [measure_of(metric) for metric in metrics]
    segment, update = holders[0]
    ids, preds, target = segment.states()
    alone = all(len(own.states()[0]) == 1 for own, _ in holders)
    final = all(is_final(metric, alone) for metric in metrics)
    known = [measure for measure in measures if measure is not None]
    found = digest_rows((ids[update], preds[update], target[update]), known, final)
    if found is not None:
        for own, place in holders:
            own.replace(place, *found)
