"""The rows of a metric, from one reset to the next, and those that single updates stand for."""

from __future__ import annotations

import weakref
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torchmetrics import Metric

from lightning_retrieval_guard import _compat
from lightning_retrieval_guard.epoch.query_ids import Batch
from lightning_retrieval_guard.epoch.row_table import RowStates, ScoredUpdate
from lightning_retrieval_guard.watch.call_site import CallSite
from lightning_retrieval_guard.watch.merged import Merged, merged_into
from lightning_retrieval_guard.watch.suppressions import Suppressed
from lightning_retrieval_guard.watch.update_context import OUTSIDE_STAGES, Feed, Given, Source, UpdateContext

if TYPE_CHECKING:
    from lightning_retrieval_guard.watch.beside import Beside

KeptRows = tuple[list[Tensor], list[Tensor], list[Tensor]]


@dataclass(frozen=True, slots=True)
class UpdateInfo:
    """One update of a metric that keeps rows.

    Attributes:
        batch: What is known of its batches.
        feed: What fed it.
    """

    batch: Batch
    feed: Feed


@dataclass(frozen=True)
class Dropped:
    """What a metric still held of an earlier epoch and was made to forget.

    Attributes:
        epoch: The epoch that began then.
        count: Rows, or updates of a metric that keeps no rows.
        sanity: Whether they came from the sanity check.
    """

    epoch: int | None
    count: int
    sanity: bool


class MetricLife:
    """The rows of one metric from one reset to the next.

    The rows stay in the metric, unless they may not be there when the epoch ends; then they are kept here. A life keeps
    its metric alive until it is released, and for good once a key shows it.
    """

    __slots__ = (
        "__weakref__",
        "_kept",
        "_metric",
        "feeds",
        "generation",
        "infos",
        "is_shown",
        "lost",
        "record",
        "scored",
    )

    def __init__(self, record: MetricRecord) -> None:
        self.record = record
        self.generation = record.generation
        self.infos: Sequence[UpdateInfo] = record.infos
        self.feeds: Mapping[Feed, int] = record.feeds
        # what is kept of updates whose rows are not
        self.scored: Mapping[int, ScoredUpdate] = {}
        self.is_shown = False
        # what another stage made the metric forget when this life ended
        self.lost: Mapping[Feed, int] = {}
        self._metric: Metric | None = record.metric()
        self._kept: KeptRows | None = None

    @property
    def metric(self) -> Any:
        """The metric or one with the same settings, or ``None`` where both are gone."""
        living = self.record.metric()
        return living if living is not None else self._metric

    def hold(self) -> None:
        """A key shows these rows."""
        if not self.is_shown:
            self._metric, self.is_shown = (self.metric if self._metric is None else self._metric), True

    def release(self) -> None:
        """Let everything go, unless a key shows it."""
        if not self.is_shown:
            self._metric = self._kept = None
            self.scored = {}

    @property
    def is_current(self) -> bool:
        """Whether the rows are those that the metric holds."""
        return self._kept is None

    def states(self) -> RowStates:
        """Ids, scores and relevance, one tensor an update."""
        return self._kept if self._kept is not None else _compat.row_states(self.metric)

    def keep(self) -> None:
        """Take over the rows, because the metric is about to forget them."""
        ids, preds, target = _compat.row_states(self.metric)
        self._kept = (list(ids), list(preds), list(target))

    def capture(self, rows: KeptRows, settings: Metric) -> None:
        """Keep rows as they are now, and in place of the metric one with the same settings."""
        # rows that come later belong to the metric and not to what is kept
        count = len(rows[0])
        self.infos, self.feeds = list(self.record.infos[:count]), dict(self.record.feeds)
        self._kept, self._metric, self.scored = rows, settings, {}

    def resume(self) -> None:
        """The metric still holds the rows, so they need not be kept."""
        metric = self.record.metric()
        if self._kept is not None and metric is not None:
            self._kept, self._metric, self.scored = None, metric, {}
            self.infos, self.feeds = self.record.infos, self.record.feeds

    def drop_rows(self, update: int, scored: ScoredUpdate) -> None:
        """Keep of an update what was made of it."""
        assert self._kept is not None
        for column in self._kept:
            column[update] = column[update].new_empty(0)
        self.scored = {**self.scored, update: scored}


@dataclass(slots=True)
class MetricRecord:
    """What is known about one metric object."""

    metric: weakref.ref[Metric]
    is_rows: bool
    created_in_hook: str | None
    is_composition: bool = False
    generation: int = 0
    infos: list[UpdateInfo] = field(default_factory=list)
    # the number of updates by what fed them
    feeds: dict[Feed, int] = field(default_factory=dict)
    first_update: CallSite | None = None
    # what silences rules at the first update, and at the log calls that have shown the metric
    suppressed: Suppressed = ()
    suppressed_where_shown: Suppressed = ()
    samples_at_update: dict[Source, int] = field(default_factory=dict)
    # the dataloaders that have fed it in the last epoch of each stage
    fed_by: dict[str | None, set[int | None]] = field(default_factory=dict)
    fed_last: Feed | None = None
    synced_in_steps: int = 0
    # whether it counts its updates together with the members of its compute group, and why it should not
    is_grouped: bool = False
    merged: Merged | None = None
    # the member of its compute group that is fed in its place
    leader: MetricRecord | None = None
    # what it would hold of one dataloader alone, and without the sample that the sampler repeated
    beside: Beside | None = None
    # the same of an epoch that goes on after another stage, and what that stage made it forget: feeds with updates
    outer: Beside | None = None
    lost: dict[Feed, int] = field(default_factory=dict)
    # what fed it a repeated sample, and fed it last, where nothing goes beside it
    fed_repeated: Feed | None = None
    # the last epoch that fed it when its batches were over
    fed_after_steps: int | None = None
    # whether an update has left rows out
    left_rows_out: bool = False
    # the batch in which it was made in a step
    made_in_batch: int | None = None
    resets_in_steps: bool = False
    # the last epoch in a step of which it was reset
    reset_in_epoch: int | None = None
    dropped: Dropped | None = None
    # whether a log call has shown the metric or an unchanged value of its compute(), a value of its forward(), or it
    # as a part of a composition; and whether the program has computed it
    is_shown: bool = False
    is_forwarded: bool = False
    is_composed: bool = False
    is_computed: bool = False
    # what compute() returned in place of which the guard gave another value
    program_value: Any = None
    # where it was before the guard brought it to the module's device
    moved_from: torch.device | None = None
    # the list of ids and how many of its parts are known to be on the metric's device
    checked_parts: tuple[int, int] = (0, 0)
    _life: weakref.ref[MetricLife] | None = None

    @property
    def life(self) -> MetricLife:
        """The life of the rows that the metric holds now."""
        current = self.held_life
        if current is None:
            current = MetricLife(self)
            # weakly, so that a life that no key shows is gone with its batch
            self._life = weakref.ref(current)
        return current

    @property
    def held_life(self) -> MetricLife | None:
        """The same, if somebody holds it."""
        current = self._life() if self._life is not None else None
        return current if current is not None and current.generation == self.generation else None

    @property
    def may_forget(self) -> bool:
        """Whether every number that depends on what it holds is, as far as is seen, one at which a finding can stand.

        What the program makes of a value, such as ``1 - metric.compute()``, has none.
        """
        return (self.is_shown or not self.is_computed) and (self.is_rows or not self.is_composed)

    @property
    def stamp(self) -> tuple[int, int]:
        """Another one after every update and every reset of a metric that keeps rows."""
        return self.generation, len(_compat.row_states(self.metric())[0])

    def note_update(self, context: UpdateContext | None, given: Given) -> None:
        """Count an update.

        Args:
            context: What feeds metrics now; ``None`` outside of stages.
            given: The arguments of the update.
        """
        feed = OUTSIDE_STAGES if context is None else context.feed
        self.feeds[feed] = self.feeds.get(feed, 0) + 1
        if context is not None and feed != self.fed_last:
            self.fed_by.setdefault(feed.stage, set()).add(feed.dataloader)
            self.fed_repeated = self.fed_repeated if self.fed_repeated == feed else None
        if context is not None and not context.in_step:
            self.fed_after_steps = feed.epoch
        self.fed_last = feed
        if self.is_rows:
            self.infos.append(UpdateInfo(Batch() if context is None else context.batch_of(self, given.ids), feed))
            rows = given.rows
            self.left_rows_out |= rows is not None and _compat.row_states(self.metric())[0][-1].numel() < rows

    def relink(self, leader: MetricRecord) -> None:
        """Hold what the leader of the compute group holds, fed as it was."""
        if not self.is_grouped:
            of_leader, of_member = leader.metric(), self.metric()
            self.merged = None if of_leader is None or of_member is None else merged_into(of_leader, of_member)
        self.is_grouped = leader.is_grouped = True
        self.leader = leader
        self.first_update = self.first_update or leader.first_update
        self.suppressed = self.suppressed or leader.suppressed
        # linked before, and the two have counted together since
        if self.feeds is leader.feeds:
            return
        self.infos, self.feeds = leader.infos, leader.feeds
        self.fed_by, self.samples_at_update = leader.fed_by, leader.samples_at_update
        life = self.held_life
        if life is not None and life.is_current:
            life.infos, life.feeds = self.infos, self.feeds

    def leave_group(self) -> None:
        """An update of this member alone: count by itself from now on."""
        self.is_grouped, self.merged, self.leader = False, None, None
        # copies, because the two count apart from now on
        self.infos, self.feeds = list(self.infos), dict(self.feeds)
        self.fed_by = {stage: set(loaders) for stage, loaders in self.fed_by.items()}
        self.samples_at_update = dict(self.samples_at_update)
        life = self.held_life
        if life is not None and life.is_current:
            life.infos, life.feeds = self.infos, self.feeds

    def start_over(self, lost: Sequence[Feed] = ()) -> None:
        """The metric begins a new life.

        Args:
            lost: Feeds of epochs that go on, where another stage has reset it.
        """
        life = self.held_life
        if life is not None:
            life.lost = {feed: self.feeds[feed] for feed in lost}
        for feed in lost:
            self.lost[feed] = self.lost.get(feed, 0) + self.feeds[feed]
        self.generation += 1
        self.beside = self.fed_last = None
        self.infos = []
        self.feeds = {}
        self.checked_parts = (0, 0)
        self.left_rows_out = False


def fed_in(epoch: int, lives: Iterable[tuple[MetricRecord, Iterable[Feed]]]) -> int | None:
    """The one dataloader in the steps of which metrics were fed in an epoch; ``None`` if there is none.

    Args:
        epoch: The epoch.
        lives: The metrics, each with what fed it.
    """
    dataloaders: set[int | None] = set()
    for record, feeds in lives:
        # it holds samples of any of them
        if (record.leader or record).fed_after_steps == epoch:
            return None
        dataloaders |= {feed.dataloader for feed in feeds if feed.epoch == epoch}
    return dataloaders.pop() if len(dataloaders) == 1 else None


class SomeUpdates:
    """Some updates of a metric life."""

    def __init__(self, life: MetricLife, updates: list[int]) -> None:
        self.life = life
        self.record = life.record
        self.updates = updates

    @property
    def metric(self) -> Any:
        """As of the life, which alone decides how long the metric is kept."""
        return self.life.metric

    def states(self) -> RowStates:
        """Ids, scores and relevance, one tensor an update."""
        ids, preds, target = self.life.states()
        if len(self.updates) == len(ids):
            return ids, preds, target
        chosen = self.updates
        return (
            [ids[update] for update in chosen],
            [preds[update] for update in chosen],
            [target[update] for update in chosen],
        )

    @property
    def scored(self) -> dict[int, ScoredUpdate]:
        """What is kept of updates whose rows are not."""
        scored = self.life.scored
        return {index: scored[update] for index, update in enumerate(self.updates) if update in scored}


class ForwardUpdates(SomeUpdates):
    """The updates of a metric life whose ``forward()`` values were logged."""


AnyLife = MetricLife | SomeUpdates


def life_of(life: AnyLife) -> MetricLife:
    """The life that holds the rows."""
    return life.life if isinstance(life, SomeUpdates) else life
