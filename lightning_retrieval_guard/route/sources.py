"""The retrieval metrics of a stage whose rows the ranks compare, under names that are the same on every rank."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePath
from typing import Any

from torchmetrics import Metric

from lightning_retrieval_guard import _compat
from lightning_retrieval_guard.observe.keys import KeyRecord
from lightning_retrieval_guard.observe.metrics import MetricWatch
from lightning_retrieval_guard.observe.segments import ForwardRows, MetricRecord, Segment, UpdateInfo
from lightning_retrieval_guard.observe.site import Site
from lightning_retrieval_guard.observe.stage import StageRecord
from lightning_retrieval_guard.retrieval.facts import RowFacts, gather_facts
from lightning_retrieval_guard.retrieval.rows import Pieces, RowTable, build_table, cut_pieces

# a metric that was made in one of these lives for the step only
_STEP_HOOKS = ("training_step", "validation_step", "test_step")


Lives = Sequence[Segment | ForwardRows]


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
    table: RowTable | None
    facts: RowFacts
    pieces: Pieces | None

    def __post_init__(self) -> None:
        self._updates = [len(life.states()[0]) for life in self.lives]

    def shows(self, lives: Lives) -> bool:
        """Whether these are the rows of the same metric lives, unchanged since."""
        if len(lives) != len(self.lives) or any(not _same_life(*pair) for pair in zip(lives, self.lives, strict=True)):
            return False
        return self._updates == [len(life.states()[0]) for life in lives]


def _same_life(one: Segment | ForwardRows, other: Segment | ForwardRows) -> bool:
    return _segment_of(one) is _segment_of(other)


def _segment_of(life: Segment | ForwardRows) -> Segment:
    return life.segment if isinstance(life, ForwardRows) else life


def name_of(key: KeyRecord, sources: Mapping[str, LocalSource]) -> str | None:
    """The source that a key shows, if it is among ``sources``."""
    return next((name for name, source in sources.items() if key.segments and source.shows(key.segments)), None)


class SourceFinder:
    """Finds the sources of a stage."""

    def __init__(self, trainer: Any, module: Any, watch: MetricWatch, rank: int, world_size: int) -> None:
        self._trainer = trainer
        self._module = module
        self._watch = watch
        self._rank = rank
        self._world_size = world_size
        # rows that several metrics share are grouped once; the list of ids is kept so that its id stays its own
        self._cuts: dict[int, tuple[object, RowTable | None, Pieces | None]] = {}

    def in_stage(self, stage: StageRecord, keys: Iterable[KeyRecord]) -> dict[str, LocalSource]:
        """The metrics that were updated in the stage, and those that the keys show."""
        names, keys = self._names(), list(keys)
        forwarded = {id(life.record) for key in keys if key.kind == "forward" for life in key.segments}
        found: dict[str, LocalSource] = {}
        for metric, record in self._fed_in(stage.stage):
            if record.born_in not in _STEP_HOOKS and _compat.row_states(metric)[0]:
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
        self._cuts.clear()
        return found

    def _name_for(self, key: KeyRecord) -> str:
        """The name of a lasting metric, so that ranks without rows find it; else a name by the key."""
        life = key.segments[-1]
        lasting = isinstance(life, Segment) and life.is_current and life.record.born_in not in _STEP_HOOKS
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
        self._cuts.clear()
        return source

    def _fed_in(self, stage: str) -> Iterator[tuple[Metric, MetricRecord]]:
        """The metrics that were updated in a stage, and the members of their compute groups, which share their rows."""
        records = list(self._watch.row_records())
        shared = {id(_compat.row_states(metric)[0]) for metric, record in records if stage in record.fed_by}
        return ((metric, record) for metric, record in records if id(_compat.row_states(metric)[0]) in shared)

    def _build(self, name: str, lives: Lives, stage: StageRecord, shown_by_forward: bool) -> LocalSource:
        last = lives[-1]
        metric, record = last.metric, last.record
        table, pieces = self._cut(lives)
        # rows of an earlier epoch tell nothing about the ids of this one
        samples = [info.samples if info.epoch == stage.epoch else None for life in lives for info in self._infos(life)]
        padding = stage.padding()
        one_loader = len(record.fed_by.get(stage.stage, ())) <= 1
        values_of_forward = any(isinstance(life, ForwardRows) for life in lives)
        facts, pieces = gather_facts(
            table,
            samples,
            self._world_size,
            pieces,
            ends_repeated=padding is not None and one_loader and padding.repeats_last(self._rank),
            opaque=not _compat.scores_by_query(metric),
            mean=_compat.aggregation_of(metric) == "mean",
            synchronises=_compat.syncs_on_compute(metric) and not values_of_forward,
            single_life=len(lives) == 1,
        )
        site = record.first_update or Site("<unknown>", 1)
        synced = sum({id(life.record): life.record.synced_in_steps for life in lives}.values())
        return LocalSource(name, metric, site, synced, shown_by_forward, lives, table, facts, pieces)

    def _cut(self, lives: Lives) -> tuple[RowTable | None, Pieces | None]:
        ids = lives[0].states()[0]
        known = self._cuts.get(id(ids)) if len(lives) == 1 else None
        if known is not None:
            return known[1:]
        table = build_table([life.states() for life in lives])
        pieces = None if table is None else cut_pieces(table)
        if len(lives) == 1:
            self._cuts[id(ids)] = (ids, table, pieces)
        return table, pieces

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
            for path, metric in _metrics_in(vars(owner), prefix):
                names.setdefault(id(metric), path)
        return names


def _metrics_in(attributes: Mapping[str, Any], prefix: str) -> Iterator[tuple[str, Metric]]:
    for name, value in attributes.items():
        path = f"{prefix}.{name}" if prefix else name
        parts = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
        for place, part in ((path, value), *((f"{path}[{place!r}]", part) for place, part in parts)):
            if isinstance(part, Metric):
                yield place, part


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
