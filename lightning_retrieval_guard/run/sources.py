"""The retrieval metrics of a stage whose rows the ranks compare, under names that are the same on every rank."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePath
from typing import TYPE_CHECKING

from torchmetrics import Metric

from lightning_retrieval_guard import _compat
from lightning_retrieval_guard.epoch.facts import MergedHow, SourceFacts
from lightning_retrieval_guard.epoch.query_chunks import QueryChunks
from lightning_retrieval_guard.epoch.query_ids import Batch
from lightning_retrieval_guard.epoch.row_facts import RowFacts, gather_facts
from lightning_retrieval_guard.epoch.row_table import RowTable
from lightning_retrieval_guard.ranking.measures import measure_of
from lightning_retrieval_guard.run.epoch_rows import EpochRows, SharedRows, SharedRowSets, epoch_rows_of
from lightning_retrieval_guard.watch.call_site import CallSite
from lightning_retrieval_guard.watch.keys import KeyRecord
from lightning_retrieval_guard.watch.merged import Merged
from lightning_retrieval_guard.watch.metric_lives import (
    AnyLife,
    Dropped,
    ForwardUpdates,
    MetricLife,
    MetricRecord,
    SomeUpdates,
    UpdateInfo,
    life_of,
)
from lightning_retrieval_guard.watch.metrics import STEP_HOOKS, MetricWatch
from lightning_retrieval_guard.watch.stage import StageRecord
from lightning_retrieval_guard.watch.suppressions import Suppressed, patterns_of
from lightning_retrieval_guard.watch.unregistered import iter_modules
from lightning_retrieval_guard.watch.update_context import Feed

if TYPE_CHECKING:
    from lightning_retrieval_guard.run.context import RunContext


@dataclass
class LocalSource:
    """The rows of one metric, or of the metrics that one key showed step by step, on this rank.

    ``shown_by_forward`` says that values of the metric's ``forward()`` are logged, so that it may never combine ranks.
    """

    name: str
    metric: Metric
    site: CallSite
    synced_in_steps: int
    shown_by_forward: bool
    epoch_rows: EpochRows
    rows: SharedRows
    group: tuple[int, ...] | None
    dropped: Dropped | None = None

    def __post_init__(self) -> None:
        self._updates = [_updates_of(life) for life in self.epoch_rows.lives]

    @property
    def suppressed(self) -> Suppressed:
        """What silences rules at the first update."""
        return self.epoch_rows.lives[-1].record.suppressed

    def shows(self, lives: Sequence[AnyLife]) -> bool:
        """Whether these are the rows of the same metric lives, unchanged since."""
        if [*map(life_of, lives)] != [*map(life_of, self.epoch_rows.lives)]:
            return False
        return self._updates == [_updates_of(life) for life in lives]

    def facts(self, rows: int) -> SourceFacts:
        """What this rank reports of it, with the index of its rows."""
        measure = measure_of(self.metric)
        merged = self.epoch_rows.lives[-1].record.merged
        values_of_forward = any(isinstance(life, ForwardUpdates) for life in self.epoch_rows.lives)
        return SourceFacts(
            rows=rows,
            metric=type(self.metric).__name__,
            path=self.site.path,
            line=self.site.line,
            synced_in_steps=self.synced_in_steps,
            synchronises=_compat.syncs_on_compute(self.metric) and not values_of_forward,
            shown_by_forward=self.shown_by_forward,
            syncs_itself=_compat.syncs_itself(self.metric),
            mean=_compat.aggregation_of(self.metric) == "mean",
            columns=1 if measure is None else measure.columns,
            group=self.group,
            stale=self.epoch_rows.stale if self.dropped is None else self.dropped.count,
            sanity=self.epoch_rows.sanity and self.epoch_rows.stale > 0
            if self.dropped is None
            else self.dropped.sanity,
            dropped=self.dropped is not None,
            shared=self.epoch_rows.shared,
            elsewhere=self.epoch_rows.elsewhere,
            lost=self.epoch_rows.lost,
            merged="" if merged is None else merged.why,
            merged_how="" if merged is None else _how_merged(merged, self.epoch_rows.lives[-1].record, self.rows.table),
            suppressed=patterns_of(self.suppressed),
        )


def _how_merged(merged: Merged, record: MetricRecord, table: RowTable | None) -> MergedHow:
    """By what is seen: rows that the leader of the compute group or the metric itself leaves out, or less."""
    if merged.ignores is None or table is None:
        return merged.how
    seen = record.left_rows_out if merged.leader_ignores else bool((table.target == merged.ignores).any())
    return "rows" if seen else merged.how


def _updates_of(life: AnyLife) -> list[int]:
    return life.updates if isinstance(life, SomeUpdates) else list(range(len(life.states()[0])))


class SourceFinder:
    """Finds the sources of a stage."""

    def __init__(self, run: RunContext, watch: MetricWatch) -> None:
        self._run = run
        self._watch = watch
        self._sets = SharedRowSets()

    def in_stage(self, stage: StageRecord, keys: Iterable[KeyRecord]) -> dict[str, LocalSource]:
        """The metrics that were updated in the stage, and those that the keys show."""
        names, keys = self._names(), list(keys)
        forwarded = {id(life.record) for key in keys if key.call.kind == "forward" for life in key.lives}
        sources: dict[str, LocalSource] = {}
        for metric, record in self._fed_in(stage.stage):
            # metrics of a step have no name that other ranks know, and go by the key that shows them
            if record.created_in_hook not in STEP_HOOKS and _compat.row_states(metric)[0]:
                name = _free_name(names.get(id(metric)) or _name_by_site(record), sources)
                epoch_rows = self.epoch_rows([record.life], stage)
                sources[name] = self._build(name, epoch_rows, stage, shown_by_forward=id(record) in forwarded)
        return sources | self.behind_keys(stage, keys, sources)

    def epoch_rows(self, lives: Sequence[AnyLife], stage: StageRecord, dataloader: int | None = None) -> EpochRows:
        """The rows of metric lives that belong to the epoch, of one dataloader or of all."""
        return epoch_rows_of(lives, self._fed, stage.feeding, dataloader)

    def name_of(self, key: KeyRecord, stage: StageRecord, sources: Mapping[str, LocalSource]) -> str | None:
        """The source that a key shows, if it is among ``sources``."""
        if not key.lives:
            return None
        epoch_rows, by_key = self.epoch_rows(key.shown_lives, stage, key.call.dataloader), f"key:{key.call.storage}"
        # a rank may have had one life where others had several, so that only the key has the same name on all
        names = [by_key] if _was_reset(key, stage) else sources
        return next((name for name in names if name in sources and sources[name].shows(epoch_rows.lives)), None)

    def behind_keys(
        self, stage: StageRecord, keys: Iterable[KeyRecord], earlier: Mapping[str, LocalSource]
    ) -> dict[str, LocalSource]:
        """The metrics that the keys show and that are not among the earlier sources, as they were there."""
        sources: dict[str, LocalSource] = {}
        for key in keys:
            if key.lives and not key.mixed and self.name_of(key, stage, {**earlier, **sources}) is None:
                epoch_rows = self.epoch_rows(key.shown_lives, stage, key.call.dataloader)
                name = self._name_for(key, stage)
                name = f"{name} of dataloader {key.call.dataloader}" if epoch_rows.shared else name
                name = _free_name(name, {**earlier, **sources})
                sources[name] = self._build(name, epoch_rows, stage, shown_by_forward=key.call.kind == "forward")
        self._sets.clear()
        return sources

    def _name_for(self, key: KeyRecord, stage: StageRecord) -> str:
        """The name of a lasting metric, so that ranks without rows find it; else a name by the key."""
        life = key.shown_lives[-1]
        lasting = isinstance(life, MetricLife) and life.is_current and life.record.created_in_hook not in STEP_HOOKS
        by_metric = lasting and len(key.lives) == 1 and not _was_reset(key, stage)
        return self.name(life.record) if by_metric else f"key:{key.call.storage}"

    def metric(self, name: str) -> Metric | None:
        """The metric of that name, if this rank has it."""
        names = self._names()
        return next((metric for metric, _ in self._watch.row_records() if names.get(id(metric)) == name), None)

    def name(self, record: MetricRecord) -> str:
        """The name of a metric."""
        return self._names().get(id(record.metric())) or _name_by_site(record)

    def by_name(self, metrics: Iterable[tuple[Metric, MetricRecord]]) -> dict[str, tuple[Metric, MetricRecord]]:
        """Some metrics by their names."""
        names, named = self._names(), dict[str, tuple[Metric, MetricRecord]]()
        for metric, record in metrics:
            named[_free_name(names.get(id(metric)) or _name_by_site(record), named)] = metric, record
        return named

    def of_metric(self, record: MetricRecord, stage: StageRecord) -> LocalSource:
        """One metric by itself."""
        source = self._build(self.name(record), self.epoch_rows([record.life], stage), stage, shown_by_forward=False)
        self._sets.clear()
        return source

    def _fed_in(self, stage: str) -> Iterator[tuple[Metric, MetricRecord]]:
        """The metrics that were updated in a stage, and the members of their compute groups, which share their rows."""
        records = list(self._watch.row_records())
        shared = {id(_compat.row_states(metric)[0]) for metric, record in records if stage in record.fed_by}
        return ((metric, record) for metric, record in records if id(_compat.row_states(metric)[0]) in shared)

    def _build(self, name: str, epoch_rows: EpochRows, stage: StageRecord, shown_by_forward: bool) -> LocalSource:
        lives = epoch_rows.lives
        metric, record = lives[-1].metric, lives[-1].record
        site = record.first_update or CallSite("<unknown>", 1)
        # each metric once, however many of its lives are shown
        synced = sum({id(life.record): life.record.synced_in_steps for life in lives}.values())
        group = _compat.group_of(metric)
        ranks = None if group is None else tuple(self._run.exchange.ranks_of(group))
        rows = self._rows(lives, stage)
        rows.metrics.append(metric)
        dropped = record.dropped if record.dropped is not None and record.dropped.epoch == stage.epoch else None
        return LocalSource(name, metric, site, synced, shown_by_forward, epoch_rows, rows, ranks, dropped)

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
            info.batch if info.feed.epoch == stage.epoch else Batch() for life in lives for info in self._infos(life)
        ]
        single_life = len(lives) == 1 and self._spans_epoch(lives[0])
        in_step = any(batch.in_step for batch in batches)
        pools, shards = stage.pools_with_repeated(in_step), () if in_step else stage.shards
        about = (tuple(batches), repeats, is_repeated, pools, shards, single_life)

        def collect_facts(rows: SharedRows) -> tuple[RowFacts, QueryChunks | None]:
            return gather_facts(
                rows.table,
                batches,
                self._run.exchange.world_size,
                seek_answer=rows.compares_best,
                scope=self._run.settings.query_scope,
                repeats=repeats,
                is_repeated=is_repeated,
                pools=pools,
                shards=shards,
                single_life=single_life,
                count=stage.batches,
            )

        return self._sets.find(about, lives, collect_facts)

    def _spans_epoch(self, life: AnyLife) -> bool:
        """Whether a metric life may span the epoch: not that of a metric that was made in a step for its one batch."""
        return life.record.created_in_hook not in STEP_HOOKS or any(
            info.batch.samples != 0 for info in self._infos(life)[1:]
        )

    def _infos(self, life: AnyLife) -> Sequence[UpdateInfo]:
        """What is known of the updates."""
        if isinstance(life, SomeUpdates):
            infos = self._infos(life.life)
            return [infos[update] for update in life.updates if update < len(infos)]
        return self._fed(life)[0]

    def _fed(self, life: AnyLife) -> tuple[Sequence[UpdateInfo], Collection[Feed]]:
        """What is known of the updates of a life, and what fed it; nothing where not every update was seen."""
        whole = life_of(life)
        return (whole.infos, whole.feeds) if len(whole.infos) == len(whole.states()[0]) else ([], ())

    def _names(self) -> dict[int, str]:
        modules = _compat.named_modules(self._run.module)
        names = {id(module): path for path, module in modules if isinstance(module, Metric)}
        callbacks = _compat.callbacks_of(self._run.trainer)
        owners = [("", self._run.module), *((type(callback).__name__, callback) for callback in callbacks)]
        for prefix, owner in owners:
            for path, part in iter_modules(vars(owner), prefix):
                if isinstance(part, Metric):
                    # the path within the module goes before one in a list or in a callback
                    names.setdefault(id(part), path)
        return names


def _was_reset(key: KeyRecord, stage: StageRecord) -> bool:
    """Whether a metric that steps show was reset in steps of the epoch."""
    return key.call.in_step and any(life.record.reset_in_epoch == stage.epoch for life in key.lives)


def _name_by_site(record: MetricRecord) -> str:
    metric, site = record.metric(), record.first_update
    where = f"@{PurePath(site.path).name}:{site.line}" if site is not None else ""
    return f"{type(metric).__name__}{where}"


def _free_name(name: str, taken: Mapping[str, object]) -> str:
    number, free = 1, name
    while free in taken:
        number += 1
        free = f"{name}#{number}"
    return free
