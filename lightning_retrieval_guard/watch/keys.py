"""Log calls: what a program logs under a key in one epoch of one stage, and which metric a tensor came from."""

from __future__ import annotations

import weakref
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from numbers import Integral
from typing import Any, Literal, NamedTuple

from torch import Tensor

from lightning_retrieval_guard import _compat
from lightning_retrieval_guard.epoch.facts import Kind, LogCall, WeightCounts
from lightning_retrieval_guard.ranking.measures import Measure, measure_of
from lightning_retrieval_guard.watch.batches import BatchSize, tensors_in
from lightning_retrieval_guard.watch.metric_history import MetricHistory
from lightning_retrieval_guard.watch.metric_lives import (
    AnyLife,
    ForwardUpdates,
    MetricLife,
    MetricRecord,
    SomeUpdates,
    fed_in,
    life_of,
)
from lightning_retrieval_guard.watch.suppressions import Suppressed
from lightning_retrieval_guard.watch.torch_functions import BatchMean, SampleMeans
from lightning_retrieval_guard.watch.update_context import Repeats

How = Literal["compute", "forward"]


class Origin(NamedTuple):
    """Where a tensor came from: a metric, what made it, and that metric's life and update."""

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
            # another tensor may have this id by now, and its entry stays
            if origins.get(key, (None,))[0] is reference:
                del origins[key]

        writes = _compat.count_of_writes(tensor)
        origins[key] = (weakref.ref(tensor, forget), origin, tensor.detach().clone() if writes is None else writes)


def _differ(one: Tensor, other: Tensor) -> Tensor:
    return ((one != other) & ~(one.isnan() & other.isnan())).any()


@dataclass
class Weights:
    """How the batch sizes of a key's log calls compare with the samples, and what the weighted sums lack.

    Attributes:
        counts: Log calls by what their weight is; see ``WeightCounts``.
        explained: As in ``WeightCounts``.
        integral: As in ``WeightCounts``.
        value: What the weighted sum lacks to be weighted by samples.
        weight: What the sum of weights lacks to be the number of samples.
        varies: Whether the weights are not one and the same multiple of the samples.
    """

    counts: Counter[str] = field(default_factory=Counter)
    explained: bool = True
    integral: bool = True
    value: Any = 0.0
    weight: float = 0.0
    varies: bool = False
    _ratio: float | None = None

    @property
    def facts(self) -> WeightCounts:
        """The counts for the other ranks."""
        return WeightCounts(**self.counts, explained=self.explained, integral=self.integral)

    def note(self, used: Any, given: bool, batch: BatchSize, value: Any, world_size: int) -> None:
        """Take in one log call: the weight that was used, whether the user gave it, and the true size."""
        samples = batch.samples
        if type(used) is int and used == samples and self._ratio == 1:  # as nearly always
            self.counts["equal"] += 1
            return
        if isinstance(used, Tensor):  # looking into it could wait for the device
            self.integral = self.integral and not used.is_floating_point()
            return
        self.integral = self.integral and isinstance(used, Integral)
        self._note_ratio(used, samples)
        if samples is None:
            self.counts["unsure"] += not given and len(set(batch.leading)) > 1
        elif used == samples:
            self.counts["equal"] += 1
        else:
            self._note_other(used, given, batch, samples, world_size)
            plain = value.detach() if isinstance(value, Tensor) else value
            # not in place: the first tensor decides the device
            self.value = self.value + plain * (samples - used)
            self.weight += samples - used

    def _note_ratio(self, used: float, samples: int | None) -> None:
        if samples:
            self.varies = self.varies or (self._ratio is not None and self._ratio != used / samples)
            self._ratio = used / samples

    def _note_other(self, used: float, given: bool, batch: BatchSize, samples: int, world_size: int) -> None:
        short = batch.nominal is not None and samples < batch.nominal
        if not given:
            self.counts["guessed"] += 1
        elif world_size > 1 and used == world_size * samples:
            # two mistakes make this number, and nothing says which
            if short and used == batch.nominal:
                self.counts["either"] += 1
            else:
                self.counts["times_world"] += 1
        elif short and world_size > 1 and used == world_size * (batch.nominal or 0):
            self.counts["times_world_nominal"] += 1
        elif short and used == batch.nominal:
            self.counts["nominal"] += 1
        self.explained = self.explained and batch.explains(used)


@dataclass
class KeyRecord:
    """One logged key of one epoch on this rank.

    Attributes:
        call: The first log call.
        lives: The metric lives that its values show.
        counts: For each of them how many updates its value was made of; ``None`` for all that it has in the end.
        suppressed: What silences rules at all of its log calls.
        program_value: What the program would have logged last, where the guard gave it another value.
        first_batch: The mean of the first batch, where the sampler repeats its first sample.
        last_batch: That of the last batch, where it ends on a repeated sample.
        last_of: The rank that has this sample first.
        is_written: Whether the program wrote to a value between the metric and a log call.
    """

    call: LogCall
    calls: int = 0
    synced: bool = False
    lives: list[AnyLife] = field(default_factory=list)
    counts: list[int | None] = field(default_factory=list)
    # of metrics that keep no rows
    history: MetricHistory = field(default_factory=MetricHistory)
    # the metric whose value was logged last
    shown: MetricRecord | None = None
    weights: Weights = field(default_factory=Weights)
    suppressed: Suppressed = ()
    program_value: Any = None
    is_written: Tensor | bool = False
    first_batch: BatchMean | None = None
    last_batch: BatchMean | None = None
    last_of: int | None = None
    _repeated_in: SampleMeans | None = None
    _differs: bool = False
    _measure: Measure | None = None

    @property
    def mixed(self) -> bool:
        """Whether its values are of different kinds or settings, or a metric was fed on in a step that showed it."""
        if self._differs or (self.call.in_step and any(life is not shown for life, shown in self._lives_shown)):
            return True
        # settings that have changed since are those of no value here
        return bool(self.lives) and self._measure != measure_of(life_of(self.lives[-1]).metric)

    @property
    def shown_lives(self) -> list[AnyLife]:
        """The metric lives, with the updates that the values were made of."""
        return [shown for _, shown in self._lives_shown]

    @property
    def _lives_shown(self) -> Iterator[tuple[AnyLife, AnyLife]]:
        for life, count in zip(self.lives, self.counts, strict=True):
            is_whole = count is None or not isinstance(life, MetricLife) or len(life.states()[0]) <= count
            yield life, (life if is_whole else SomeUpdates(life_of(life), list(range(count or 0))))

    @property
    def shown_metrics(self) -> list[Any]:
        """The metric that was logged last, or the parts of a composition."""
        metric = self.shown.metric() if self.shown is not None else None
        return self.shown_parts or ([] if metric is None else [metric])

    @property
    def holds_unseen_rows(self) -> bool:
        """Whether the metric that was logged last is no retrieval metric and holds some, which it feeds as it likes."""
        metric = self.shown.metric() if self.shown is not None and not self.shown.is_rows else None
        if metric is None or _compat.is_composition(metric):
            return False
        return any(_compat.is_rows_metric(part) for part in _compat.metrics_in(metric).values())

    @property
    def shown_parts(self) -> list[Any]:
        """The parts of the composition that was logged last; none of anything else."""
        metric = self.shown.metric() if self.shown is not None and not self.mixed else None
        if metric is None or not _compat.is_composition(metric):
            return []
        return [part for _, part in _compat.named_modules(metric) if part is not metric]

    def fed_in(self, epoch: int) -> int | None:
        """The one dataloader in the steps of which its metrics were fed; ``None`` if there is none."""
        if self.history.count:
            return self.history.fed_in(epoch)
        lives = [life_of(life) for life in self.lives]
        return fed_in(epoch, [(life.record, life.feeds) for life in lives])

    def note_repeated(self, repeats: Repeats, value: Any, means: SampleMeans) -> None:
        """Take in the mean of a batch, one sample of which the sampler repeats."""
        again, self._repeated_in = means is self._repeated_in, means
        if repeats.is_first:
            self.first_batch = means.mean(value, is_last=False)
        if repeats.last_of is not None:
            self.last_batch, self.last_of = means.mean(value, is_last=True), repeats.last_of
        if again:  # the sample is in both values
            self.first_batch, self.last_batch = None, None

    def note_origin(self, kind: Kind, origin: Origin | None) -> None:
        """Take in where the value of one log call came from."""
        self._differs = self._differs or kind != self.call.kind
        self.synced = self.synced or (origin is not None and origin.synced)
        if origin is not None and not origin.record.is_rows:
            self.history.note(origin.record)
        self.shown = self.shown if origin is None else origin.record
        self.program_value = None if origin is None else origin.program_value
        if origin is None or origin.life is None or origin.life.metric is None:
            return
        origin.life.hold()
        self._compare_settings(origin.life)
        last = self.lives[-1] if self.lives else None
        if kind == "forward":
            self._note_forward(last, origin.life, origin.update)
        elif last is not origin.life:
            if kind == "metric":
                self._forget_lives(origin.record)
            self._append(origin.life, origin.update + 1 if kind == "compute" else None)
        else:
            self.counts[-1] = None

    def _forget_lives(self, record: MetricRecord) -> None:
        """Forget what the metric does not hold any more, as Lightning does, unless another stage has reset it."""
        # what another stage has reset is still part of the epoch
        kept = [
            (life, count)
            for life, count in zip(self.lives, self.counts, strict=True)
            if life_of(life).lost.keys() & record.lost.keys()
        ]
        self.lives, self.counts = [life for life, _ in kept], [count for _, count in kept]

    def _append(self, life: AnyLife, count: int | None) -> None:
        self.lives.append(life)
        self.counts.append(count)

    def _compare_settings(self, life: MetricLife) -> None:
        """A value of this life is shown."""
        measure, last = measure_of(life.metric), life_of(self.lives[-1]) if self.lives else life
        self._differs |= bool(self.lives) and (measure != self._measure or type(last.metric) is not type(life.metric))
        self._measure = measure

    def _note_forward(self, last: AnyLife | None, life: MetricLife, update: int) -> None:
        if not isinstance(last, ForwardUpdates) or last.life is not life:
            last = ForwardUpdates(life, [])
            self._append(last, None)
        # one value may be logged twice under a key
        if not last.updates or last.updates[-1] != update:
            last.updates.append(update)
