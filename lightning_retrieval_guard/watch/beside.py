"""What metrics that keep states would hold of one dataloader alone, and without the sample that the sampler repeated.

The metric itself is fed as the program wants it. Beside it go other states. From its first update by another dataloader
or stage on they are those that come of this one's updates. From the batch on that ends on a repeated sample they lack
that sample, whose inputs are kept, because the other rank must have seen the same.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from lightning_retrieval_guard import _compat
from lightning_retrieval_guard.epoch.states import Held, States
from lightning_retrieval_guard.watch.batches import bytes_of, tensors_in
from lightning_retrieval_guard.watch.metric_lives import MetricRecord
from lightning_retrieval_guard.watch.update_context import Feed, Repeats, UpdateContext

_DRAWS = "its update draws random numbers, which would be others without the sample"


def why_not_apart(metric: Any, inputs: tuple[tuple[Any, ...], dict[str, Any]], size: int) -> str:
    """Why a sample cannot be left out of an update; empty where nothing prevents it.

    Args:
        metric: The metric.
        inputs: The arguments of the update.
        size: The samples in the batch.
    """
    whole = _whole(metric, inputs, size)
    if not _is_cut(inputs, size):
        return "none of what it was updated with has one entry a sample"
    # of one sample nothing is left, so nothing else goes into the states
    if whole and size > 1:
        return f"it was updated with {whole} too, which may hold the sample"
    if _compat.resamples(metric):
        return _DRAWS
    if any("mean" in _compat.state_reductions(part).values() for part in _compat.metrics_in(metric).values()):
        return "it has states that are averaged over ranks, and nothing tells how a sample weighs in them"
    return ""


@dataclass
class Beside:
    """What goes beside a metric while a dataloader feeds it.

    Attributes:
        feed: The epoch and the dataloader.
        is_apart: Whether the metric holds updates by another dataloader or stage too, and ``states`` those by this one.
        first: Inputs of the first sample of this rank, where that is repeated on another one, update by update.
        last: Inputs of the last sample, where that is repeated.
        last_of: The rank that has this one as its first.
        states: What the metric would hold of this dataloader, without that sample.
        problem: Why that is not known.
    """

    feed: Feed
    is_apart: bool = False
    first: list[Any] = field(default_factory=list)
    last: list[Any] = field(default_factory=list)
    last_of: int | None = None
    states: States = field(default_factory=dict)
    problem: str = ""


class BesideFeeder:
    """Feeds metrics beside the program.

    Args:
        limit: The bytes of states that may be kept beside what metrics hold.
        run: Runs what belongs to a call of a metric.
    """

    def __init__(self, limit: float, run: Callable[..., Any]) -> None:
        self._limit = limit
        self._run = run
        self._bytes = 0

    def take(
        self,
        record: MetricRecord,
        feeding: UpdateContext,
        inputs: tuple[tuple[Any, ...], dict[str, Any]],
    ) -> None:
        """An update is about to happen.

        Args:
            record: Of the metric.
            feeding: What feeds it.
            inputs: The arguments of the update.
        """
        metric = record.metric()
        if metric is None or record.is_composition:
            return
        repeats, beside = feeding.repeats, record.beside
        if beside is None or beside.feed != feeding.feed:
            beside = self._begin(record, metric, feeding)
            if beside is None:
                return  # as nearly always
        if repeats is not None and repeats.is_first:
            beside.first.append(_sample(inputs, repeats.size, 0))
        is_last = repeats is not None and repeats.last_of is not None
        # the states without the sample lack this update, and nothing says in which order it belongs
        if beside.last_of is not None and not is_last:
            beside.problem = "it was updated again after the batch of the repeated sample"
        if repeats is not None and is_last:
            self._meet_repeated(metric, beside, repeats, inputs)
            # nothing is left of the batch
            if repeats.size == 1:
                return
            inputs = _without_last(inputs, repeats.size)
        if (is_last or beside.is_apart) and not beside.problem:
            draws = self._feed(record, metric, beside, inputs)
            # from other samples it makes something else of the same numbers
            if draws and is_last:
                beside.problem = _DRAWS

    def _begin(self, record: MetricRecord, metric: Any, feeding: UpdateContext) -> Beside | None:
        """What is to go beside a metric for what feeds it now."""
        outer = record.outer
        if outer is not None and outer.feed == feeding.feed:
            record.beside, record.outer = outer, None
            return outer
        dataloader = feeding.feed.dataloader if feeding.logs_by_dataloader else None
        is_apart = any(feeding.is_of_another(feed, dataloader) for feed in record.feeds)
        if not is_apart and feeding.repeats is None:
            return None
        self.set_aside(record, [feed for feed in record.feeds if feeding.is_outer(feed)])
        states = self._copy(metric, _compat.default_states) if is_apart else {}
        record.beside = Beside(feeding.feed, is_apart, states=states)
        return record.beside

    def set_aside(self, record: MetricRecord, feeds: Sequence[Feed]) -> None:
        """Another stage is about to feed or reset a metric: keep what it holds of an epoch that goes on.

        Args:
            record: Of the metric.
            feeds: What fed it in such epochs.
        """
        metric, outer, beside = record.metric(), record.outer, record.beside
        if metric is None or not feeds or (outer is not None and outer.feed in feeds):
            return
        if beside is not None and beside.is_apart and beside.feed in feeds:
            record.outer = beside
        # of updates that others have mixed into it nothing is known
        elif len(feeds) == len(record.feeds) == 1:
            record.outer = Beside(feeds[0], is_apart=True, states=self._copy(metric, _compat.held_states))
            # lists that the metric is about to lose
            self._bytes += _bytes_in(record.outer.states, list)
            self._heed_limit(record.outer)

    def _meet_repeated(self, metric: Any, beside: Beside, repeats: Repeats, inputs: Any) -> None:
        if beside.last_of is None:
            beside.last_of = repeats.last_of
            if not beside.is_apart:
                beside.states = self._copy(metric, _compat.held_states)
            self._heed_limit(beside)
        beside.last.append(_sample(inputs, repeats.size, -1))
        beside.problem = why_not_apart(metric, inputs, repeats.size) or beside.problem

    def _feed(self, record: MetricRecord, metric: Any, beside: Beside, inputs: Any) -> bool:
        """Update a metric beside the program; whether that draws random numbers on the host."""
        draws = False
        (args, kwargs), parts = inputs, _compat.metrics_in(metric)
        try:
            with (
                # the program must draw the numbers that it would draw without the guard
                torch.random.fork_rng(devices=[]),
                _compat.attributes_kept(metric),
                _compat.WithStates(parts, beside.states),
            ):
                random_state = torch.random.get_rng_state()
                self._run(record, metric.update, *args, **kwargs)
                draws = not torch.equal(random_state, torch.random.get_rng_state())
                held = {path: Held(part.update_count, _compat.held_states(part)) for path, part in parts.items()}
            self._bytes += sum(_grown(before.states, held[path].states) for path, before in beside.states.items())
            beside.states = held
            self._heed_limit(beside)
        except Exception as error:  # whatever a metric says of other states, the program never had it hold these
            beside.problem = f"its update beside the program raises {type(error).__name__}"
        return draws

    def _heed_limit(self, beside: Beside) -> None:
        if self._bytes > self._limit:
            beside.states, beside.problem = {}, "its states take more than max_held_mb"

    def _copy(self, metric: Any, states_of: Callable[[Any], dict[str, Any]]) -> States:
        copies = {}
        for path, part in _compat.metrics_in(metric).items():
            states, is_blank = states_of(part), states_of is _compat.default_states
            updates = 0 if is_blank else part.update_count
            copies[path] = Held(updates, _compat.copied_states(states))
        self._bytes += _bytes_in(copies, Tensor)
        return copies

    def start_stage(self, kept: Iterable[Beside]) -> None:
        """A stage begins.

        Args:
            kept: What goes on from others.
        """
        self._bytes = sum(_bytes_in(beside.states, (Tensor, list)) for beside in kept)


def _bytes_in(states: States, kinds: type | tuple[type, ...]) -> int:
    chosen = [state for held in states.values() for state in held.states.values() if isinstance(state, kinds)]
    return sum(map(bytes_of, tensors_in(chosen)))


def _grown(before: dict[str, Any], after: dict[str, Any]) -> int:
    """The bytes of what an update has appended to lists, which were empty or shared with the metric before."""
    lists = [state for state in after.values() if isinstance(state, list)]
    earlier = {id(part) for state in before.values() if isinstance(state, list) for part in state[-1:]}
    return sum(
        bytes_of(state[-1])
        for state in lists
        if state and isinstance(state[-1], Tensor) and id(state[-1]) not in earlier
    )


def _has_entries(value: Any, size: int) -> bool:
    """Whether a value has one entry a sample."""
    if isinstance(value, Tensor):
        return value.ndim > 0 and len(value) == size
    return isinstance(value, (list, tuple)) and len(value) == size


def _is_cut(inputs: Any, size: int) -> bool:
    args, kwargs = inputs
    return any(_has_entries(value, size) for value in _values((*args, *kwargs.values())))


def _whole(metric: Any, inputs: Any, size: int) -> str:
    """What was given for all samples at once, such as a mean loss of the batch; empty where that is nothing.

    Whole numbers, words and ``None`` are settings, and so is a number that stands in the signature of ``update()``.
    """
    args, kwargs = inputs
    try:
        given = inspect.signature(type(metric).update).bind(metric, *args, **kwargs).arguments
    except (TypeError, ValueError):  # then nothing is known of names
        given = {}
    settings = [given[name] for name in given if _is_setting(metric, name, given[name])]
    for value in _values((*args, *kwargs.values())):
        is_whole = not _has_entries(value, size) and not isinstance(value, _SETTINGS)
        if is_whole and not any(value is setting for setting in settings):
            shape = f" of shape {tuple(value.shape)}" if isinstance(value, Tensor) else ""
            return f"a {type(value).__name__}{shape}"
    return ""


_SETTINGS = (bool, int, str, type(None), torch.dtype, torch.device)


def _is_setting(metric: Any, name: str, value: Any) -> bool:
    """Whether a float is what it is without the program, or a weight of 1, which torchmetrics gives to every sample."""
    default = inspect.signature(type(metric).update).parameters[name].default
    weighs = name == "weight" and type(metric).__module__.startswith("torchmetrics.aggregation")
    return isinstance(value, float) and (value == 1 if weighs else value == default)


def _values(values: Any) -> list[Any]:
    return [part for value in values for part in (_values(value.values()) if isinstance(value, dict) else [value])]


def _without_last(value: Any, size: int) -> Any:
    """Arguments without the last sample, as they are where they have no entry a sample."""
    args, kwargs = value
    return tuple(_cut(entry, size) for entry in args), {name: _cut(entry, size) for name, entry in kwargs.items()}


def _cut(value: Any, size: int) -> Any:
    if isinstance(value, dict):
        return {name: _cut(part, size) for name, part in value.items()}
    return value[:-1] if _has_entries(value, size) else value


def _sample(inputs: Any, size: int, index: int) -> list[Any]:
    """What the arguments hold of one sample, and what they say of all."""
    args, kwargs = inputs
    values = _values((*args, *(kwargs[name] for name in sorted(kwargs))))
    entries = [value[index] for value in values if _has_entries(value, size)]
    common = [value for value in values if isinstance(value, (bool, int, str))]
    return [entry.detach().clone() if isinstance(entry, Tensor) else entry for entry in entries] + common
