"""What metrics that keep states would hold without the sample that the sampler repeated.

The metric itself is fed as the program wants it. Beside it, from the batch on that ends on the repeated sample, go the
states that come of the same updates without that sample, and its inputs, which the other rank must have seen too.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from lightning_retrieval_guard import _compat
from lightning_retrieval_guard.epoch.states import Held, States
from lightning_retrieval_guard.watch.metric_lives import MetricRecord
from lightning_retrieval_guard.watch.update_context import Repeats, UpdateContext


@dataclass
class WithoutRepeated:
    """A metric in an epoch whose sampler repeats samples.

    Attributes:
        epoch: The epoch.
        first: Inputs of the first sample of this rank, where that is repeated on another one, update by update.
        last: Inputs of the last sample, where that is repeated.
        last_of: The rank that has this one as its first.
        states: What the metric would hold without it.
        problem: Why that is not known.
    """

    epoch: int
    first: list[Any] = field(default_factory=list)
    last: list[Any] = field(default_factory=list)
    last_of: int | None = None
    states: States = field(default_factory=dict)
    problem: str = ""


class RepeatedSamples:
    """Feeds metrics beside the program.

    Args:
        limit: The bytes of states that may be kept, where these are no lists.
    """

    def __init__(self, limit: float) -> None:
        self._limit = limit
        self._bytes = 0

    def take(
        self,
        record: MetricRecord,
        feeding: UpdateContext | None,
        inputs: tuple[tuple[Any, ...], dict[str, Any]],
        running: Callable[[MetricRecord], AbstractContextManager[None]],
    ) -> None:
        """An update is about to happen.

        Args:
            record: Of the metric.
            feeding: What feeds it.
            inputs: The arguments of the update.
            running: Where updates belong to a metric.
        """
        repeats, seen, metric = None if feeding is None else feeding.repeats, record.repeated, record.metric()
        if feeding is None or (repeats is None and seen is None):  # as nearly always
            return
        if metric is None or _compat.is_composition(metric):
            return
        if seen is None or seen.epoch != feeding.epoch:
            if repeats is None:
                return
            seen = record.repeated = WithoutRepeated(feeding.epoch)
        if repeats is None:
            if seen.last_of is not None:
                seen.problem = "it was updated again after the batch of the repeated sample"
            return
        if repeats.is_first:
            seen.first.append(_sample(inputs, repeats.size, 0))
        if repeats.last_of is not None:
            self._feed_beside(metric, seen, repeats, inputs, functools.partial(running, record))

    def _feed_beside(
        self, metric: Any, seen: WithoutRepeated, repeats: Repeats, inputs: Any, running: Callable[[], Any]
    ) -> None:
        if seen.last_of is None:
            seen.last_of = repeats.last_of
            seen.states = self._copy(metric)
            if self._bytes > self._limit:
                seen.states, seen.problem = {}, "its states take more than max_held_mb"
        seen.last.append(_sample(inputs, repeats.size, -1))
        if not _is_cut(inputs, repeats.size):
            seen.problem = "none of what it was updated with has one entry a sample"
        if seen.problem or repeats.size == 1:
            return
        (args, kwargs), parts = _without_last(inputs, repeats.size), _compat.metrics_in(metric)
        states = {path: (held.updates, held.states) for path, held in seen.states.items()}
        try:
            with (
                running(),
                torch.random.fork_rng(devices=[]),
                _compat.attributes_kept(metric),
                _compat.WithStates(parts, states),
            ):
                metric.update(*args, **kwargs)
                held = {path: Held(part.update_count, _compat.held_states(part)) for path, part in parts.items()}
            seen.states = held
        except Exception as error:  # whatever a metric says of fewer samples, the program never fed it these
            seen.problem = f"its update without the repeated sample raises {type(error).__name__}"

    def _copy(self, metric: Any) -> States:
        copies = {}
        for path, part in _compat.metrics_in(metric).items():
            states = _compat.held_states(part)
            self._bytes += sum(_bytes(state) for state in states.values() if isinstance(state, Tensor))
            copies[path] = Held(part.update_count, {name: _copied(state) for name, state in states.items()})
        return copies

    def clear(self) -> None:
        """The run is over, or an epoch: nothing is kept any more."""
        self._bytes = 0


def _bytes(state: Tensor) -> int:
    return state.numel() * state.element_size()


def _copied(state: Any) -> Any:
    return state.detach().clone() if isinstance(state, Tensor) else list(state)


def _has_entries(value: Any, size: int) -> bool:
    """Whether a value has one entry a sample."""
    if isinstance(value, Tensor):
        return value.ndim > 0 and len(value) == size
    return isinstance(value, (list, tuple)) and len(value) == size


def _is_cut(inputs: Any, size: int) -> bool:
    args, kwargs = inputs
    return any(_has_entries(value, size) for value in _values((*args, *kwargs.values())))


def _values(values: Any) -> list[Any]:
    return [part for value in values for part in (_values(value.values()) if isinstance(value, dict) else [value])]


def _without_last(value: Any, size: int) -> Any:
    """Arguments without the last sample, as they are where they have no entry a sample."""
    args, kwargs = value
    return tuple(_cut(one, size) for one in args), {name: _cut(one, size) for name, one in kwargs.items()}


def _cut(value: Any, size: int) -> Any:
    if isinstance(value, dict):
        return {name: _cut(part, size) for name, part in value.items()}
    return value[:-1] if _has_entries(value, size) else value


def _sample(inputs: Any, size: int, place: int) -> list[Any]:
    """What the arguments hold of one sample, and what they say of all."""
    args, kwargs = inputs
    values = _values((*args, *(kwargs[name] for name in sorted(kwargs))))
    entries = [value[place] for value in values if _has_entries(value, size)]
    common = [value for value in values if isinstance(value, (bool, int, str))]
    return [entry.detach().clone() if isinstance(entry, Tensor) else entry for entry in entries] + common
