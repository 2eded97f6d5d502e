"""Rows on this rank: each set once for all metrics that saw it, and which of a metric's belong to an epoch.

Others are those of an earlier epoch, of another stage, or of another dataloader.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torchmetrics import Metric

from lightning_retrieval_guard.epoch.facts import ForeignState
from lightning_retrieval_guard.epoch.query_chunks import QueryChunks
from lightning_retrieval_guard.epoch.row_facts import RowFacts
from lightning_retrieval_guard.epoch.row_table import RowTable, ScoredUpdate, build_table
from lightning_retrieval_guard.ranking.measures import measure_of
from lightning_retrieval_guard.rules.base import Correction
from lightning_retrieval_guard.watch.metric_lives import AnyLife, MetricLife, SomeUpdates, UpdateInfo, life_of
from lightning_retrieval_guard.watch.update_context import Feed, UpdateContext

# from a table, and whether metrics compare the best rows of queries
CollectFacts = Callable[..., tuple[RowFacts, QueryChunks | None]]


class SharedRows:
    """Rows on this rank, and the metrics that saw them."""

    def __init__(self, table: RowTable | None, collect_facts: CollectFacts) -> None:
        self.table = table
        self.metrics: list[Metric] = []
        self._collect_facts = collect_facts

    @cached_property
    def _facts_and_chunks(self) -> tuple[RowFacts, QueryChunks | None]:
        """For when all metrics that share the rows are known."""
        return self._collect_facts(self.table, seek_answer=self.compares_best)

    @property
    def facts(self) -> RowFacts:
        """What the other ranks hear of the rows."""
        return self._facts_and_chunks[0]

    @property
    def chunks(self) -> QueryChunks | None:
        """The rows of each query in each update."""
        return self._facts_and_chunks[1]

    @property
    def compares_best(self) -> bool:
        """Whether several metrics show of each query whether its best row is relevant."""
        measures = [measure for measure in map(measure_of, self.metrics) if measure is not None]
        return len({measure.formula for measure in measures if measure.is_best_row_relevant}) > 1


class SharedRowSets:
    """The rows that were met at one meeting, each set once."""

    def __init__(self) -> None:
        self._by_parts: dict[tuple[Any, ...], tuple[SharedRows, tuple[object, ...]]] = {}
        self._by_size: dict[tuple[Any, ...], list[SharedRows]] = {}

    def find(self, about: tuple[Any, ...], lives: Sequence[AnyLife], collect_facts: CollectFacts) -> SharedRows:
        """The set of these rows.

        Args:
            about: What else must be the same.
            lives: The metric lives.
            collect_facts: Collects facts and chunks of a new set.
        """
        states, scored = [life.states() for life in lives], _scored_of(lives)
        held = (*(part for life_states in states for column in life_states for part in column), *scored.values())
        parts = (about, *map(id, held))
        # the same tensors have the same values: nothing is looked at twice
        if parts in self._by_parts:
            return self._by_parts[parts][0]
        table = build_table(states, scored)
        # copies of the same rows are found by value, among tables of their length
        alike = self._by_size.setdefault((about, 0 if table is None else len(table)), [])
        rows = next((rows for rows in alike if _same_rows(rows.table, table)), None)
        if rows is None:
            rows = SharedRows(table, collect_facts)
            alike.append(rows)
        self._by_parts[parts] = (rows, held)  # kept, so that no other tensor gets their ids
        return rows

    def clear(self) -> None:
        """Forget all sets."""
        self._by_parts.clear()
        self._by_size.clear()


def _scored_of(lives: Sequence[AnyLife]) -> dict[int, ScoredUpdate]:
    """What is kept of updates whose rows are not, by their numbers over all lives."""
    by_update: dict[int, ScoredUpdate] = {}
    start = 0
    for life in lives:
        by_update.update({start + update: scored for update, scored in life.scored.items()})
        start += len(life.states()[0])
    return by_update


def _same_rows(one: RowTable | None, other: RowTable | None) -> bool:
    if one is None or other is None:
        return one is other
    if one.scored or other.scored:
        return False
    columns = ((one.ends, other.ends), (one.query, other.query), (one.preds, other.preds), (one.target, other.target))
    return all(a.device == b.device and a.dtype == b.dtype and torch.equal(a, b) for a, b in columns)


@dataclass(frozen=True)
class EpochRows:
    """The rows of some metric lives that belong to an epoch, and how many others these hold.

    Attributes:
        lives: The lives, with no other rows that count.
        foreign: What else they hold, and what another stage has made a metric forget.
    """

    lives: Sequence[AnyLife]
    foreign: ForeignState


def epoch_rows_of(lives: Sequence[AnyLife], feeding: UpdateContext, dataloader: int | None = None) -> EpochRows:
    """What of some lives belongs to an epoch.

    Args:
        lives: The lives.
        feeding: What feeds metrics in the epoch.
        dataloader: The dataloader that must have fed the rows; any if ``None``.
    """
    kept: list[AnyLife] = []
    stale = shared = 0
    sanity = True
    for life in lives:
        (infos, feeds), ids = _fed(life), life.states()[0]
        # updates in compiled code are not seen, and then nothing says who fed which rows
        if not isinstance(life, MetricLife) or len(infos) != len(ids):
            kept.append(life)
            continue
        reasons = {feed: _why_not(feed, feeding, dataloader) for feed in feeds}
        # the common case needs no look at single updates
        if not any(reasons.values()):
            kept.append(life)
            continue
        chosen = []
        for update, info in enumerate(infos):
            rows = life.scored[update].rows if update in life.scored else ids[update].numel()
            reason = reasons[info.feed]
            if reason == "stale_state":
                stale += rows
                sanity = sanity and info.feed.stage == "sanity_check"
            elif reason == "foreign_state":
                shared += rows
            if reason is None:
                chosen.append(update)
        kept.append(life if len(chosen) == len(ids) else SomeUpdates(life, chosen))
    elsewhere = shared > 0 and all(feeding.has_none_of(_fed(life)[1]) for life in lives)
    ended = [(feed, count) for life in map(life_of, lives) for feed, count in life.lost.items()]
    lost = sum(count for feed, count in ended if feed.epoch == feeding.feed.epoch)
    foreign = ForeignState(stale=stale, sanity=sanity and stale > 0, shared=shared, elsewhere=elsewhere, lost=lost)
    return EpochRows(kept, foreign)


def infos_of(life: AnyLife) -> Sequence[UpdateInfo]:
    """What is known of the updates of a life."""
    if isinstance(life, SomeUpdates):
        infos = infos_of(life.life)
        return [infos[update] for update in life.updates if update < len(infos)]
    return _fed(life)[0]


def _fed(life: AnyLife) -> tuple[Sequence[UpdateInfo], Collection[Feed]]:
    """What is known of the updates of a life, and what fed it; nothing where not every update was seen."""
    whole = life_of(life)
    return (whole.infos, whole.feeds) if len(whole.infos) == len(whole.states()[0]) else ([], ())


def _why_not(feed: Feed, feeding: UpdateContext, dataloader: int | None) -> Correction | None:
    """Why rows are not of an epoch and dataloader; ``None`` for those that are."""
    if feeding.is_over(feed.epoch):
        return "stale_state" if feeding.feed.stage != "train" else None  # a training may count on from epoch to epoch
    return "foreign_state" if feeding.is_of_another(feed, dataloader) else None
