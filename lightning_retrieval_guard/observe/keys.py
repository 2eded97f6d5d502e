"""Log calls: what a program logs under a key during one epoch of one stage."""

from __future__ import annotations

from dataclasses import dataclass, field
from numbers import Integral
from typing import Any, Literal

from torch import Tensor

from lightning_retrieval_guard.observe.behind import Lives
from lightning_retrieval_guard.observe.metrics import Origin
from lightning_retrieval_guard.observe.samples import BatchSize
from lightning_retrieval_guard.observe.segments import ForwardRows, Life, MetricRecord, Segment, segment_of
from lightning_retrieval_guard.observe.suppressions import Suppressed
from lightning_retrieval_guard.retrieval.measures import ask_the_same

Kind = Literal["metric", "compute", "forward", "plain"]


@dataclass
class LogCall:
    """The first log call of a key in an epoch.

    Attributes:
        storage: Lightning's key for it.
        name: What loggers and callbacks see.
        hook: The Lightning hook that logged.
        path: The user's file.
        line: The line in it, from 1.
        kind: What was logged.
        dataloader: The index of the dataloader, where there are several.
        sync_dist: Whether Lightning was asked to reduce it over ranks, and there are several.
        rank_zero_only: As given.
        own_group: Whether a ``sync_dist_group`` was given.
        reduction: Over the batches: mean, sum, min or max.
        in_step: Whether it was logged while batches are being processed.
    """

    storage: str
    name: str
    hook: str
    path: str
    line: int
    kind: Kind
    dataloader: int | None = None
    sync_dist: bool = False
    rank_zero_only: bool = False
    own_group: bool = False
    reduction: str = "mean"
    in_step: bool = True


@dataclass
class WeightCounts:
    """How the batch sizes of a key's log calls compare with the samples of this rank.

    Attributes:
        equal: Calls whose weight is the number of samples.
        times_world: Calls whose weight is the world size times the number of samples.
        times_world_nominal: Calls whose weight is the world size times the nominal size of a fuller batch.
        nominal: Calls whose explicit weight is the nominal size while the batch is shorter.
        either: Calls that are both the world size times the samples and the nominal size of a shorter batch.
        guessed: Calls without a weight where Lightning took a leading size that is not the number of samples.
        unsure: Calls where Lightning took the first of several leading sizes and the truth is not known.
        explained: Whether the batch itself explains every weight that is not the number of samples.
        integral: Whether all weights are integers, of which Lightning floors the mean over ranks.
    """

    equal: int = 0
    times_world: int = 0
    times_world_nominal: int = 0
    nominal: int = 0
    either: int = 0
    guessed: int = 0
    unsure: int = 0
    explained: bool = True
    integral: bool = True


@dataclass
class Weights(WeightCounts):
    """The counts, and what the weighted sums lack.

    Attributes:
        value: What the weighted sum lacks to be weighted by samples.
        weight: What the sum of weights lacks to be the number of samples.
        varies: Whether the weights are not one and the same multiple of the samples.
    """

    value: Any = 0.0
    weight: float = 0.0
    varies: bool = False
    _ratio: float | None = None

    def note(self, used: Any, given: bool, batch: BatchSize, value: Any, world_size: int) -> None:
        """Take in one log call: the weight that was used, whether the user gave it, and the true size."""
        samples = batch.samples
        if type(used) is int and used == samples and self._ratio == 1:  # as nearly always
            self.equal += 1
            return
        if isinstance(used, Tensor):  # looking into it could wait for the device
            self.integral = self.integral and not used.is_floating_point()
            return
        self.integral = self.integral and isinstance(used, Integral)
        self._note_ratio(used, samples)
        if samples is None:
            self.unsure += not given and len(set(batch.leading)) > 1
        elif used == samples:
            self.equal += 1
        else:
            self._note_other(used, given, batch, samples, world_size)
            plain = value.detach() if isinstance(value, Tensor) else value
            self.value = self.value + plain * (samples - used)
            self.weight += samples - used

    def _note_ratio(self, used: float, samples: int | None) -> None:
        if samples:
            self.varies = self.varies or (self._ratio is not None and self._ratio != used / samples)
            self._ratio = used / samples

    def _note_other(self, used: float, given: bool, batch: BatchSize, samples: int, world_size: int) -> None:
        short = batch.nominal is not None and samples < batch.nominal
        if not given:
            self.guessed += 1
        elif world_size > 1 and used == world_size * samples:
            if short and used == batch.nominal:
                self.either += 1
            else:
                self.times_world += 1
        elif short and world_size > 1 and used == world_size * (batch.nominal or 0):
            self.times_world_nominal += 1
        elif short and used == batch.nominal:
            self.nominal += 1
        self.explained = self.explained and batch.explains(used)


@dataclass
class KeyRecord(LogCall):
    """One logged key of one epoch on this rank.

    Attributes:
        mixed: Whether it shows values of different kinds, or of metrics with different settings.
        suppressed: What silences rules at all of its log calls.
    """

    on_epoch: bool = True
    calls: int = 0
    synced: bool = False
    mixed: bool = False
    segments: list[Life] = field(default_factory=list)
    # of metrics that keep no rows
    lives: Lives = field(default_factory=Lives)
    # the metric whose value was logged last
    shown: MetricRecord | None = None
    weights: Weights = field(default_factory=Weights)
    suppressed: Suppressed = ()

    def note_origin(self, kind: Kind, origin: Origin | None) -> None:
        """Take in where the value of one log call came from."""
        self.mixed = self.mixed or kind != self.kind
        self.synced = self.synced or (origin is not None and origin.synced)
        if origin is not None and not origin.record.is_rows:
            self.lives.note(origin.record)
        self.shown = self.shown if origin is None else origin.record
        if origin is None or origin.segment is None or origin.segment.metric is None:
            return
        origin.segment.hold()
        last = self.segments[-1] if self.segments else None
        if kind == "forward":
            self._note_forward(last, origin.segment, origin.update)
        elif last is not origin.segment:
            self._go_on(origin.segment)
            self.segments.append(origin.segment)

    def _go_on(self, segment: Segment) -> None:
        """Another segment is shown from now on."""
        if self.segments:
            last = segment_of(self.segments[-1])
            self.mixed = self.mixed or not ask_the_same(last.metric, segment.metric)
            last.end()
        segment.begin()

    def _note_forward(self, last: Life | None, segment: Segment, update: int) -> None:
        if not isinstance(last, ForwardRows) or last.segment is not segment:
            self._go_on(segment)
            last = ForwardRows(segment, [])
            self.segments.append(last)
        if not last.updates or last.updates[-1] != update:
            last.updates.append(update)
