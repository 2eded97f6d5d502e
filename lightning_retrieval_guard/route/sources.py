"""The retrieval metrics of a stage whose rows the ranks compare, under names that are the same on every rank."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import PurePath
from typing import Any

import torch
from torchmetrics import Metric

from lightning_retrieval_guard import _compat
from lightning_retrieval_guard.exchange import Exchange
from lightning_retrieval_guard.observe.holders import modules_in
from lightning_retrieval_guard.observe.keys import KeyRecord
from lightning_retrieval_guard.observe.metrics import STEP_HOOKS, MetricWatch
from lightning_retrieval_guard.observe.segments import ForwardRows, MetricRecord, Segment, UpdateInfo
from lightning_retrieval_guard.observe.site import Site
from lightning_retrieval_guard.observe.stage import StageRecord
from lightning_retrieval_guard.retrieval.compaction import can_compact
from lightning_retrieval_guard.retrieval.facts import RowFacts, gather_facts, tell
from lightning_retrieval_guard.retrieval.measures import measure_of
from lightning_retrieval_guard.retrieval.rows import Digest, Pieces, RowTable, States, build_table
from lightning_retrieval_guard.retrieval.score import largest_cut_off
from lightning_retrieval_guard.settings import Settings

Lives = Sequence[Segment | ForwardRows]


@dataclass(frozen=True)
class SourceFacts:
    """What a rank tells of one metric besides its rows.

    Attributes:
        rows: The place of its rows among those that the rank tells of.
        metric: Its class.
        path: The user's file of the first update.
        line: The line in it.
        synced_in_steps: How often ``compute()`` or ``forward()`` combined ranks within steps.
        synchronises: Whether the program lets it combine ranks.
        shown_by_forward: Whether values of its ``forward()`` are logged, so that it may never combine ranks.
        mean: Whether its value is a mean over queries.
        columns: The numbers in the value of one query; zero for a curve that is as long as the longest query.
        group: The ranks that it combines, where these are not all.
    """

    rows: int
    metric: str
    path: str
    line: int
    synced_in_steps: int = 0
    synchronises: bool = True
    shown_by_forward: bool = False
    mean: bool = True
    columns: int = 1
    group: tuple[int, ...] | None = None

    def to_message(self) -> dict[str, Any]:
        """A form that JSON can hold."""
        return tell(self)

    @classmethod
    def from_message(cls, message: dict[str, Any]) -> SourceFacts:
        """Read what ``to_message`` wrote."""
        group = message.get("group")
        return cls(**{**message, "group": None if group is None else tuple(group)})


class RowSet:
    """Rows on this rank, and the metrics that saw them."""

    def __init__(self, table: RowTable | None, tell_facts: Callable[[RowSet], tuple[RowFacts, Pieces | None]]) -> None:
        self.table = table
        self.metrics: list[Metric] = []
        self._tell_facts = tell_facts

    @cached_property
    def told(self) -> tuple[RowFacts, Pieces | None]:
        """Facts and pieces; for when all metrics that share the rows are known."""
        return self._tell_facts(self)

    @property
    def facts(self) -> RowFacts:
        """What the other ranks hear of the rows."""
        return self.told[0]

    @property
    def pieces(self) -> Pieces | None:
        """The rows of each query in each update."""
        return self.told[1]

    @property
    def compares_best(self) -> bool:
        """Whether several metrics tell of each query whether its best row is relevant."""
        measures = [measure for measure in map(measure_of, self.metrics) if measure is not None]
        return len({measure.formula for measure in measures if measure.is_best_row_relevant}) > 1

    @property
    def keep(self) -> int | None:
        """How many rows of a query can matter for its metrics; ``None`` for all."""
        measures = [measure for measure in map(measure_of, self.metrics) if measure is not None]
        if self.table is None or not can_compact(measures, self.table.preds, self.table.target):
            return None
        return largest_cut_off(measures)


@dataclass
class LocalSource:
    """The rows of one metric, or of the metrics that one key showed step by step, on this rank.

    ``shown_by_forward`` tells that values of the metric's ``forward()`` are logged, so that it may never combine ranks.
    """

    name: str
    metric: Metric
    site: Site
    synced_in_steps: int
    shown_by_forward: bool
    lives: Lives
    rows: RowSet
    group: tuple[int, ...] | None

    def __post_init__(self) -> None:
        self._updates = [len(life.states()[0]) for life in self.lives]

    def shows(self, lives: Lives) -> bool:
        """Whether these are the rows of the same metric lives, unchanged since."""
        if len(lives) != len(self.lives) or any(not _same_life(*pair) for pair in zip(lives, self.lives, strict=True)):
            return False
        return self._updates == [len(life.states()[0]) for life in lives]

    def facts(self, rows: int) -> SourceFacts:
        """What this rank tells of it, with the place of its rows."""
        measure = measure_of(self.metric)
        values_of_forward = any(isinstance(life, ForwardRows) for life in self.lives)
        return SourceFacts(
            rows=rows,
            metric=type(self.metric).__name__,
            path=self.site.path,
            line=self.site.line,
            synced_in_steps=self.synced_in_steps,
            synchronises=_compat.syncs_on_compute(self.metric) and not values_of_forward,
            shown_by_forward=self.shown_by_forward,
            mean=_compat.aggregation_of(self.metric) == "mean",
            columns=1 if measure is None else measure.columns,
            group=self.group,
        )


class RowSets:
    """The rows that were met at one meeting, each set once."""

    def __init__(self) -> None:
        self._by_parts: dict[tuple[Any, ...], tuple[RowSet, Sequence[States]]] = {}
        self._by_size: dict[tuple[Any, ...], list[RowSet]] = {}

    def find(self, about: tuple[Any, ...], lives: Lives, tell_facts: Callable[[RowSet], Any]) -> RowSet:
        """The set of these rows.

        Args:
            about: What else must be the same.
            lives: The metric lives.
            tell_facts: Tells facts and pieces of a new set.
        """
        states, digests = [life.states() for life in lives], _digests(lives)
        parts = (about, *(id(part) for own in states for column in own for part in column))
        if parts in self._by_parts:
            return self._by_parts[parts][0]
        table = build_table(states, digests)
        alike = self._by_size.setdefault((about, 0 if table is None else len(table)), [])
        rows = next((rows for rows in alike if _same_rows(rows.table, table)), None)
        if rows is None:
            rows = RowSet(table, tell_facts)
            alike.append(rows)
        self._by_parts[parts] = (rows, states)  # the tensors are kept so that their ids stay their own
        return rows

    def clear(self) -> None:
        """Forget all sets."""
        self._by_parts.clear()
        self._by_size.clear()


def _digests(lives: Lives) -> dict[int, Digest]:
    """What is known of updates whose rows are not all kept, by their numbers over all lives."""
    found: dict[int, Digest] = {}
    start = 0
    for life in lives:
        found.update({start + update: digest for update, digest in life.digests.items()})
        start += len(life.states()[0])
    return found


def _same_rows(one: RowTable | None, other: RowTable | None) -> bool:
    if one is None or other is None:
        return one is other
    if one.digests or other.digests:
        return False
    columns = ((one.ends, other.ends), (one.query, other.query), (one.preds, other.preds), (one.target, other.target))
    return all(a.device == b.device and a.dtype == b.dtype and torch.equal(a, b) for a, b in columns)


def _same_life(one: Segment | ForwardRows, other: Segment | ForwardRows) -> bool:
    return _segment_of(one) is _segment_of(other)


def _segment_of(life: Segment | ForwardRows) -> Segment:
    return life.segment if isinstance(life, ForwardRows) else life


def name_of(key: KeyRecord, sources: Mapping[str, LocalSource]) -> str | None:
    """The source that a key shows, if it is among ``sources``."""
    return next((name for name, source in sources.items() if key.segments and source.shows(key.segments)), None)


class SourceFinder:
    """Finds the sources of a stage."""

    def __init__(self, trainer: Any, module: Any, watch: MetricWatch, exchange: Exchange, settings: Settings) -> None:
        self._trainer = trainer
        self._module = module
        self._watch = watch
        self._exchange = exchange
        self._corrects = settings.corrects
        self._scope = settings.query_scope
        self._sets = RowSets()

    def in_stage(self, stage: StageRecord, keys: Iterable[KeyRecord]) -> dict[str, LocalSource]:
        """The metrics that were updated in the stage, and those that the keys show."""
        names, keys = self._names(), list(keys)
        forwarded = {id(life.record) for key in keys if key.kind == "forward" for life in key.segments}
        found: dict[str, LocalSource] = {}
        for metric, record in self._fed_in(stage.stage):
            if record.born_in not in STEP_HOOKS and _compat.row_states(metric)[0]:
                name = _free_name(names.get(id(metric)) or _name_by_site(record), found)
                found[name] = self._build(name, [record.segment()], stage, shown_by_forward=id(record) in forwarded)
        return found | self.behind_keys(stage, keys, found)

    def behind_keys(
        self, stage: StageRecord, keys: Iterable[KeyRecord], known: Mapping[str, LocalSource]
    ) -> dict[str, LocalSource]:
        """The metrics that the keys show and that are not among the known ones, as they were there."""
        found: dict[str, LocalSource] = {}
        for key in keys:
            if key.segments and name_of(key, {**known, **found}) is None:
                name = _free_name(self._name_for(key), found)
                found[name] = self._build(name, key.segments, stage, shown_by_forward=key.kind == "forward")
        self._sets.clear()
        return found

    def _name_for(self, key: KeyRecord) -> str:
        """The name of a lasting metric, so that ranks without rows find it; else a name by the key."""
        life = key.segments[-1]
        lasting = isinstance(life, Segment) and life.is_current and life.record.born_in not in STEP_HOOKS
        return self.name(life.record) if lasting and len(key.segments) == 1 else f"key:{key.storage}"

    def metric(self, name: str) -> Metric | None:
        """The metric of that name, if this rank has it."""
        names = self._names()
        return next((metric for metric, _ in self._watch.row_records() if names.get(id(metric)) == name), None)

    def name(self, record: MetricRecord) -> str:
        """The name of a metric."""
        return self._names().get(id(record.metric())) or _name_by_site(record)

    def of_metric(self, record: MetricRecord, stage: StageRecord) -> LocalSource:
        """One metric by itself."""
        source = self._build(self.name(record), [record.segment()], stage, shown_by_forward=False)
        self._sets.clear()
        return source

    def _fed_in(self, stage: str) -> Iterator[tuple[Metric, MetricRecord]]:
        """The metrics that were updated in a stage, and the members of their compute groups, which share their rows."""
        records = list(self._watch.row_records())
        shared = {id(_compat.row_states(metric)[0]) for metric, record in records if stage in record.fed_by}
        return ((metric, record) for metric, record in records if id(_compat.row_states(metric)[0]) in shared)

    def _build(self, name: str, lives: Lives, stage: StageRecord, shown_by_forward: bool) -> LocalSource:
        metric, record = lives[-1].metric, lives[-1].record
        site = record.first_update or Site("<unknown>", 1)
        synced = sum({id(life.record): life.record.synced_in_steps for life in lives}.values())
        group = _compat.group_of(metric)
        ranks = None if group is None else tuple(self._exchange.ranks_of(group))
        rows = self._rows(lives, stage, len(ranks) if ranks is not None else self._exchange.world_size)
        rows.metrics.append(metric)
        return LocalSource(name, metric, site, synced, shown_by_forward, lives, rows, ranks)

    def _rows(self, lives: Lives, stage: StageRecord, owners: int) -> RowSet:
        """The rows of the lives, the same object for all metrics that saw the same."""
        record, padding = lives[-1].record, stage.padding()
        one_loader = len(record.fed_by.get(stage.stage, ())) <= 1
        ends_repeated = padding is not None and one_loader and padding.repeats_last(self._exchange.rank)
        # rows of an earlier epoch tell nothing about the ids of this one
        samples = [info.samples if info.epoch == stage.epoch else None for life in lives for info in self._infos(life)]
        about = (tuple(samples), ends_repeated, len(lives), owners)

        def tell_facts(rows: RowSet) -> tuple[RowFacts, Pieces | None]:
            return gather_facts(
                rows.table,
                samples,
                self._exchange.world_size,
                keep=rows.keep if self._corrects else None,
                seek_answer=rows.compares_best,
                owners=owners if self._corrects else 0,
                scope=self._scope,
                ends_repeated=ends_repeated,
                single_life=len(lives) == 1,
            )

        return self._sets.find(about, lives, tell_facts)

    def _infos(self, life: Segment | ForwardRows) -> Sequence[UpdateInfo]:
        """What is known of the updates.

        Only the first member of a compute group is updated; the others share its rows, or have copies of them.
        """
        ids = life.states()[0]
        if len(life.infos) == len(ids):
            return life.infos
        sizes = [part.numel() for part in ids]
        for metric, record in self._watch.row_records():
            if len(record.infos) == len(ids) and [part.numel() for part in _compat.row_states(metric)[0]] == sizes:
                return record.infos
        return []

    def _names(self) -> dict[int, str]:
        names = {id(module): path for path, module in self._module.named_modules() if isinstance(module, Metric)}
        owners = [("", self._module), *((type(callback).__name__, callback) for callback in self._trainer.callbacks)]
        for prefix, owner in owners:
            for path, part in modules_in(vars(owner), prefix):
                if isinstance(part, Metric):
                    names.setdefault(id(part), path)
        return names


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
