"""The rows of a metric, from one reset to the next, and those that the values of single updates stand for."""

from __future__ import annotations

import weakref
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torchmetrics import Metric

from lightning_retrieval_guard import _compat
from lightning_retrieval_guard.epoch.row_table import Digest, Rows, Settled, States
from lightning_retrieval_guard.watch.call_site import CallSite
from lightning_retrieval_guard.watch.suppressions import Suppressed

KeptStates = tuple[list[Tensor], list[Tensor], list[Tensor]]


@dataclass(frozen=True, slots=True)
class UpdateInfo:
    """One update of a metric that keeps rows.

    Attributes:
        samples: The samples this rank saw since the update before, if that is certain.
        feed: What fed it.
    """

    samples: int | None
    feed: Feed


class Feed(NamedTuple):
    """What fed a metric.

    Attributes:
        epoch: The epoch; ``None`` outside of stages.
        stage: Its stage.
        dataloader: The dataloader at hand, where there are several.
    """

    epoch: int | None = None
    stage: str | None = None
    dataloader: int | None = None


@dataclass(frozen=True)
class Dropped:
    """What a metric still held of an earlier epoch and was made to forget.

    Attributes:
        epoch: The epoch that began then.
        count: Rows, or updates of a metric that keeps no rows.
        sanity: Whether they came from the sanity check.
    """

    epoch: int
    count: int
    sanity: bool


class MetricLife:
    """The rows of one metric from one reset to the next.

    The rows stay in the metric while it holds them; a reset hands them over, so that nothing is copied in a step. A
    segment keeps its metric alive until it is released, and for good once a key shows it.
    """

    __slots__ = (
        "__weakref__",
        "_is_held",
        "_kept",
        "_metric",
        "_past",
        "_shown",
        "_stands_in",
        "feeds",
        "generation",
        "infos",
        "known",
        "record",
    )

    def __init__(self, record: MetricRecord) -> None:
        self.record = record
        self.generation = record.generation
        self.infos: list[UpdateInfo] = record.infos
        self.feeds: Mapping[Feed, int] = record.feeds
        # what is known of updates whose rows are not all kept any more
        self.known: Mapping[int, Digest | Settled] = {}
        self._metric: Metric | None = record.metric()
        self._is_held = False
        self._kept: KeptStates | None = None
        self._shown = self._past = 0
        self._stands_in = False

    @property
    def metric(self) -> Any:
        """The metric or what stands in for it, or ``None`` where both are gone."""
        living = self.record.metric()
        return living if living is not None else self._metric

    def hold(self) -> None:
        """A key shows these rows: keep the metric."""
        if not self._is_held:
            self._metric, self._is_held = self.metric, True

    @property
    def outlived_metric(self) -> bool:
        """Whether something stands in for a metric that is gone."""
        return self._stands_in and self.record.metric() is None

    @property
    def is_held(self) -> bool:
        """Whether a key shows these rows."""
        return self._is_held

    def release(self) -> None:
        """Let the metric go, unless a key shows it."""
        if not self._is_held:
            self._metric = None

    def stand_in(self) -> None:
        """Hold in place of the metric what it was made with and its rows, so that it goes when the program lets go."""
        metric = self.record.metric()
        if metric is not None and self._metric is metric:
            self._metric, self._stands_in = _compat.twin(metric), True

    def follow(self) -> None:
        """The metric lives on and has made new lists for its rows, as it does in ``forward()``."""
        metric = self.record.metric()
        if self._stands_in and metric is not None and self._kept is None:
            self._metric = _compat.twin(metric)

    def begin(self) -> None:
        """A key begins to show these rows."""
        self._shown += 1

    def end(self) -> None:
        """A key goes on to show others."""
        self._past += 1

    @property
    def is_over(self) -> bool:
        """Whether no update can come any more, and every key that shows these rows shows later ones by now."""
        return self._past == self._shown and (self._kept is not None or self.record.metric() is None)

    @property
    def waits_for_metric(self) -> bool:
        """Whether they are not over only because a metric that was made in a step has not gone yet."""
        return self._past == self._shown and self._stands_in and not self.is_over

    def replace(self, update: int, rows: Rows, known: Digest) -> None:
        """Keep of an update what a digest has left."""
        if self._kept is None:
            self.keep()
        assert self._kept is not None
        if self.outlived_metric:
            _compat.let_rows_go(self._metric)
        for column, part in zip(self._kept, rows, strict=True):
            column[update] = part
        self.known = {**self.known, update: known}

    def settle(self, rows: KeptStates, known: Mapping[int, Settled], like: MetricLife) -> None:
        """Nothing can add to the rows, which were one update: keep what came of them, in place of all else.

        Args:
            rows: What is left of them.
            known: What came of them.
            like: Settled rows of a metric with the same settings, or these; its record and its stand-in serve for all.
        """
        self._kept, self.known = rows, known
        if self.outlived_metric:
            self._metric, self.record = like._metric, like.record
            if self is like:
                _compat.let_rows_go(self._metric)
            elif self.infos == like.infos and self.feeds == like.feeds:
                self.infos, self.feeds = like.infos, like.feeds

    @property
    def is_current(self) -> bool:
        """Whether the metric still holds these rows."""
        return self._kept is None

    def states(self) -> States:
        """Ids, scores and relevance, one tensor an update."""
        return self._kept if self._kept is not None else _compat.row_states(self.metric)

    def keep(self) -> None:
        """Take over the rows, because the metric is about to forget them."""
        ids, preds, target = _compat.row_states(self.metric)
        self._kept = (list(ids), list(preds), list(target))


@dataclass(slots=True)
class MetricRecord:
    """What is known about one metric object."""

    metric: weakref.ref[Metric]
    is_rows: bool
    created_in_hook: str | None
    generation: int = 0
    infos: list[UpdateInfo] = field(default_factory=list)
    # the number of updates by what fed them
    feeds: dict[Feed, int] = field(default_factory=dict)
    first_update: CallSite | None = None
    # what silences rules at the first update, and at the log calls that have shown the metric
    suppressed: Suppressed = ()
    suppressed_where_shown: Suppressed = ()
    samples_at_update: dict[tuple[str, int | None], int] = field(default_factory=dict)
    fed_by: dict[str, set[int | None]] = field(default_factory=dict)
    synced_in_steps: int = 0
    in_forward: bool = False
    dropped: Dropped | None = None
    # what compute() returned in place of which the guard gave its own value
    program_value: Any = None
    # where it was before the guard brought it to the module's device
    moved_from: torch.device | None = None
    # the list of ids and how many of its parts are known to be on the metric's device
    settled: tuple[int, int] = (0, 0)
    _segment: weakref.ref[MetricLife] | None = None

    def segment(self) -> MetricLife:
        """The segment of the rows that the metric holds now."""
        current = self._segment() if self._segment is not None else None
        if current is None or current.generation != self.generation:
            current = MetricLife(self)
            self._segment = weakref.ref(current)
        return current

    @property
    def stamp(self) -> tuple[int, int]:
        """Another one after every update and every reset of a metric that keeps rows."""
        return self.generation, len(_compat.row_states(self.metric())[0])

    def keep_rows(self) -> None:
        """The metric forgets its rows: hand them to the segment, if somebody holds it."""
        current = self._segment() if self._segment is not None else None
        if current is not None and current.generation == self.generation and current.is_current:
            current.keep()

    def follow(self) -> None:
        """The metric was updated: whatever stands in for it must know."""
        current = self._segment() if self._segment is not None else None
        if current is not None and current.generation == self.generation:
            current.follow()

    def start_over(self) -> None:
        """The metric begins a new life."""
        self.generation += 1
        self.infos = []
        self.feeds = {}
        self.settled = (0, 0)


class SomeRows:
    """The rows of some updates of a segment."""

    def __init__(self, segment: MetricLife, updates: list[int]) -> None:
        self.segment = segment
        self.record = segment.record
        self.updates = updates

    @property
    def metric(self) -> Any:
        """As of the segment, which alone decides how long the metric is kept."""
        return self.segment.metric

    def states(self) -> States:
        """Ids, scores and relevance, one tensor an update."""
        ids, preds, target = self.segment.states()
        if len(self.updates) == len(ids):
            return ids, preds, target
        chosen = self.updates
        return [ids[one] for one in chosen], [preds[one] for one in chosen], [target[one] for one in chosen]

    @property
    def known(self) -> dict[int, Digest | Settled]:
        """What is known of updates whose rows are not all kept any more."""
        known = self.segment.known
        return {place: known[update] for place, update in enumerate(self.updates) if update in known}


class ForwardRows(SomeRows):
    """The rows of those updates of a segment whose ``forward()`` values were logged."""


Life = MetricLife | SomeRows


def life_of(life: Life) -> MetricLife:
    """The segment that holds the rows."""
    return life.segment if isinstance(life, SomeRows) else life
