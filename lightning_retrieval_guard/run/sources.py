"""The retrieval metrics of a stage whose rows the ranks compare, under names that are the same on every rank."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

from torchmetrics import Metric

from lightning_retrieval_guard import _compat
from lightning_retrieval_guard.epoch.facts import SourceFacts
from lightning_retrieval_guard.epoch.query_ids import Batch
from lightning_retrieval_guard.epoch.row_facts import gather_facts
from lightning_retrieval_guard.epoch.source_view import SourceView
from lightning_retrieval_guard.ranking.measures import Measure, measure_of
from lightning_retrieval_guard.run.epoch_rows import EpochRows, SharedRows, SharedRowSets, epoch_rows_of, infos_of
from lightning_retrieval_guard.watch.call_site import CallSite
from lightning_retrieval_guard.watch.keys import KeyRecord
from lightning_retrieval_guard.watch.metric_lives import (
    AnyLife,
    ForwardUpdates,
    MetricLife,
    MetricRecord,
    SomeUpdates,
    life_of,
)
from lightning_retrieval_guard.watch.metrics import STEP_HOOKS, MetricWatch
from lightning_retrieval_guard.watch.places import MetricNames, free_name
from lightning_retrieval_guard.watch.stage import StageRecord
from lightning_retrieval_guard.watch.suppressions import Suppressed, patterns_of

if TYPE_CHECKING:
    from lightning_retrieval_guard.run.context import RunContext


@dataclass
class LocalSource:
    """The rows of one metric, or of the metrics that one key showed step by step, on this rank.

    Attributes:
        name: The same on every rank.
        metric: The metric, or one of them.
        lives: The metric lives, with no other rows that count.
        rows: The rows.
        facts: What this rank reports of it, without the index of its rows.
        suppressed: What silences rules at the first update.
    """

    name: str
    metric: Metric
    lives: Sequence[AnyLife]
    rows: SharedRows
    facts: SourceFacts
    suppressed: Suppressed

    def __post_init__(self) -> None:
        self._updates = [_updates_of(life) for life in self.lives]

    def shows(self, lives: Sequence[AnyLife]) -> bool:
        """Whether these are the rows of the same metric lives, unchanged since."""
        if [*map(life_of, lives)] != [*map(life_of, self.lives)]:
            return False
        return self._updates == [_updates_of(life) for life in lives]


def _updates_of(life: AnyLife) -> list[int]:
    return life.updates if isinstance(life, SomeUpdates) else list(range(len(life.states()[0])))


class SourceFinder:
    """Finds the sources of a stage."""

    def __init__(self, run: RunContext, watch: MetricWatch) -> None:
        self._run = run
        self._watch = watch
        self._sets = SharedRowSets()
        self.names = MetricNames(run.trainer, run.module, watch)

    def in_stage(self, stage: StageRecord, keys: Iterable[KeyRecord]) -> dict[str, LocalSource]:
        """The metrics that were updated in the stage, and those that the keys show."""
        keys = list(keys)
        # a value of forward() is of one rank alone, also where the metric object could combine ranks
        forwarded = {id(life.record) for key in keys if key.call.kind == "forward" for life in key.lives}
        # metrics of a step have no name that other ranks know, and go by the key that shows them
        lasting = [
            (metric, record)
            for metric, record in self._fed_in(stage.stage)
            if record.created_in_hook not in STEP_HOOKS and _compat.row_states(metric)[0]
        ]
        sources = {
            name: self._build(
                name, epoch_rows_of([record.life], stage.feeding), stage, shown_by_forward=id(record) in forwarded
            )
            for name, (_, record) in self.names.each(lasting).items()
        }
        return sources | self.of_keys(stage, keys, sources)

    def name_of(self, key: KeyRecord, stage: StageRecord, sources: Mapping[str, LocalSource]) -> str | None:
        """The source that a key shows, if it is among ``sources``."""
        if not key.lives:
            return None
        lives = epoch_rows_of(key.shown_lives, stage.feeding, key.call.dataloader).lives
        by_key = f"key:{key.call.storage}"
        # a rank may have had one life where others had several, so that only the key has the same name on all
        names = [by_key] if _was_reset(key, stage) else sources
        return next((name for name in names if name in sources and sources[name].shows(lives)), None)

    def of_keys(
        self, stage: StageRecord, keys: Iterable[KeyRecord], earlier: Mapping[str, LocalSource]
    ) -> dict[str, LocalSource]:
        """The metrics that the keys show and that are not among the earlier sources, as they were there."""
        sources: dict[str, LocalSource] = {}
        for key in keys:
            if key.lives and not key.mixed and self.name_of(key, stage, {**earlier, **sources}) is None:
                epoch_rows = epoch_rows_of(key.shown_lives, stage.feeding, key.call.dataloader)
                name = self._name_for(key, stage)
                name = f"{name} of dataloader {key.call.dataloader}" if epoch_rows.foreign.shared else name
                name = free_name(name, {**earlier, **sources})
                sources[name] = self._build(name, epoch_rows, stage, shown_by_forward=key.call.kind == "forward")
        self._sets.clear()
        return sources

    def _name_for(self, key: KeyRecord, stage: StageRecord) -> str:
        """The name of a lasting metric, so that ranks without rows find it; else a name by the key."""
        life = key.shown_lives[-1]
        lasting = isinstance(life, MetricLife) and life.is_current and life.record.created_in_hook not in STEP_HOOKS
        by_metric = lasting and len(key.lives) == 1 and not _was_reset(key, stage)
        return self.names.of(life.record) if by_metric else f"key:{key.call.storage}"

    def of_metric(self, record: MetricRecord, stage: StageRecord) -> LocalSource:
        """One metric by itself."""
        epoch_rows = epoch_rows_of([record.life], stage.feeding)
        source = self._build(self.names.of(record), epoch_rows, stage, shown_by_forward=False)
        self._sets.clear()
        return source

    def _fed_in(self, stage: str) -> Iterator[tuple[Metric, MetricRecord]]:
        """The metrics that were updated in a stage, and the members of their compute groups, which share their rows."""
        records = list(self._watch.row_records())
        # an update of a group feeds its first member, whose list the others share
        shared = {id(_compat.row_states(metric)[0]) for metric, record in records if stage in record.fed_by}
        return ((metric, record) for metric, record in records if id(_compat.row_states(metric)[0]) in shared)

    def _build(self, name: str, epoch_rows: EpochRows, stage: StageRecord, shown_by_forward: bool) -> LocalSource:
        lives, foreign = epoch_rows.lives, epoch_rows.foreign
        metric, record = lives[-1].metric, lives[-1].record
        rows = self._rows(lives, stage)
        rows.metrics.append(metric)
        if record.dropped is not None and record.dropped.epoch == stage.epoch:
            foreign = replace(foreign, stale=record.dropped.count, sanity=record.dropped.sanity, dropped=True)
        if record.merged is not None:
            how = record.merged.how_seen(record.left_rows_out, None if rows.table is None else rows.table.target)
            foreign = replace(foreign, merged=record.merged.why, merged_how=how)
        measure, site = measure_of(metric), record.first_update or CallSite("<unknown>", 1)
        values_of_forward = any(isinstance(life, ForwardUpdates) for life in lives)
        facts = SourceFacts(
            **vars(foreign),
            rows=0,
            metric=type(metric).__name__,
            path=site.path,
            line=site.line,
            # each metric once, however many of its lives are shown
            synced_in_steps=sum({id(life.record): life.record.synced_in_steps for life in lives}.values()),
            # a value of forward() never combines rows of ranks, whatever the metric could do
            synchronises=_compat.syncs_on_compute(metric) and not values_of_forward,
            shown_by_forward=shown_by_forward,
            syncs_itself=_compat.syncs_itself(metric),
            mean=_compat.aggregation_of(metric) == "mean",
            columns=1 if measure is None else measure.columns,
            group=self._run.ranks_of(metric),
            suppressed=patterns_of(record.suppressed),
        )
        return LocalSource(name, metric, lives, rows, facts, record.suppressed)

    def _rows(self, lives: Sequence[AnyLife], stage: StageRecord) -> SharedRows:
        """The rows of the lives, the same object for all metrics that saw the same."""
        record, padding = lives[-1].record, stage.padding()
        # among several dataloaders nothing says whose rows are the first or the last
        one_loader = len(record.fed_by.get(stage.stage, ())) <= 1
        rank = self._run.exchange.rank
        repeats = padding.first_with_last_of(rank) if padding is not None and one_loader else None
        is_repeated = padding is not None and one_loader and padding.is_first_repeated(rank)
        # rows of an earlier epoch say nothing about the ids of this one
        batches = [
            info.batch if info.feed.epoch == stage.epoch else Batch() for life in lives for info in infos_of(life)
        ]
        single_life = len(lives) == 1 and _spans_epoch(lives[0])
        in_step = any(batch.in_step for batch in batches)
        pools, shards = stage.pools_with_repeated(in_step), () if in_step else stage.shards
        about = (tuple(batches), repeats, is_repeated, pools, shards, single_life)

        collect_facts = partial(
            gather_facts,
            batches=batches,
            world_size=self._run.exchange.world_size,
            scope=self._run.settings.query_scope,
            repeats=repeats,
            is_repeated=is_repeated,
            pools=pools,
            shards=shards,
            single_life=single_life,
            count=stage.batches,
        )
        return self._sets.find(about, lives, collect_facts)


def _was_reset(key: KeyRecord, stage: StageRecord) -> bool:
    return key.call.in_step and any(life.record.reset_in_epoch == stage.epoch for life in key.lives)


def _spans_epoch(life: AnyLife) -> bool:
    """Whether a metric life may span the epoch: not that of a metric that was made in a step for its one batch."""
    return life.record.created_in_hook not in STEP_HOOKS or any(info.batch.samples != 0 for info in infos_of(life)[1:])


class _RememberedSource(NamedTuple):
    """The rows of a metric when the ranks exchanged facts.

    Attributes:
        stamp: Of the metric's record then.
        measure: What the metric asked for.
        source: What the ranks know of them.
    """

    stamp: tuple[int, int]
    measure: Measure | None
    source: SourceView


class KnownValues:
    """What the ranks knew of metrics at the last exchange."""

    def __init__(self, watch: MetricWatch, names: MetricNames) -> None:
        self._watch = watch
        self._names = names
        self._entries: dict[int, _RememberedSource] = {}

    def clear(self) -> None:
        """Forget all values."""
        self._entries.clear()

    def last(self, record: MetricRecord) -> SourceView | None:
        """What was known of a metric, which may have been fed since."""
        entry = self._entries.get(id(record))
        return None if entry is None else entry.source

    def current(self, record: MetricRecord) -> SourceView | None:
        """What is known of a metric that was not fed since, and has the settings of then."""
        entry = self._entries.get(id(record))
        if entry is None or entry.stamp != record.stamp or entry.measure != measure_of(record.metric()):
            return None
        return entry.source

    def remember(self, local: Mapping[str, LocalSource], sources: Mapping[str, SourceView], stage: StageRecord) -> None:
        """Note for the metrics that now have a value over all ranks what it is, until they are fed again.

        Args:
            local: The metrics of this rank, by name.
            sources: What the ranks know of metrics, by name.
            stage: What this rank has seen.
        """
        names = {name: source for name, source in local.items() if name in sources}
        for metric, record in self._watch.row_records():
            lives = epoch_rows_of([record.life], stage.feeding).lives
            name = next((name for name, source in names.items() if source.shows(lives)), None)
            # without rows of its own, a metric is known by its name alone
            if name is None and not _compat.row_states(metric)[0]:
                name = self._names.of(record)
            if name is not None and name in sources:
                self._entries[id(record)] = _RememberedSource(record.stamp, measure_of(metric), sources[name])
