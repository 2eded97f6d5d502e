"""Ranks in one process: what they tell each other is passed on by hand, with no process group."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torchmetrics import Metric

from lightning_retrieval_guard import _compat
from lightning_retrieval_guard.epoch.combine import LocalRows
from lightning_retrieval_guard.epoch.facts import SourceFacts
from lightning_retrieval_guard.epoch.plan import Plan, make_plan
from lightning_retrieval_guard.epoch.query_ids import Batch, IdColumns
from lightning_retrieval_guard.epoch.row_facts import RowFacts, gather_facts
from lightning_retrieval_guard.epoch.row_table import build_table
from lightning_retrieval_guard.epoch.values import MetricOutcome
from lightning_retrieval_guard.ranking.measures import measure_of
from lightning_retrieval_guard.run.epoch_rows import SharedRows
from lightning_retrieval_guard.run.metric_group import Member, MetricGroup
from lightning_retrieval_guard.settings import QueryScope

Update = tuple[Tensor, Tensor, Tensor]  # ids, scores, relevance, each of shape (rows,)
NAME = "metric"
# no column of the batch holds the ids
MADE_IN_STEP = IdColumns(())


def update(ids: Sequence[int], scores: Sequence[float], relevance: Sequence[int]) -> Update:
    return torch.tensor(ids), torch.tensor(scores), torch.tensor(relevance)


@dataclass(eq=False)
class Rank:
    """What one rank holds, and its end of what the ranks exchange.

    Attributes:
        rows: The rows of its metrics.
        synchronises: Whether its program lets the metrics combine ranks.
        sent: The bytes that it has sent, by step.
    """

    rows: SharedRows
    synchronises: bool = True
    group: MetricGroup | None = None
    sent: dict[str, int] = field(default_factory=dict)

    @property
    def facts(self) -> RowFacts:
        # a rank without rows has nothing to tell
        return self.rows.facts if self.rows.table is not None else RowFacts()

    @property
    def local(self) -> LocalRows:
        return self.group.local


def make_rank(
    lives: Sequence[Sequence[Update]],
    metrics: Metric | Mapping[str, Metric],
    world_size: int,
    samples: Sequence[int | None] = (),
    synchronises: bool = True,
    scope: QueryScope = "auto",
    columns: IdColumns | None = MADE_IN_STEP,
    in_steps: bool = True,
    counted: bool = False,
    **properties: Any,
) -> Rank:
    """A rank with the updates of one or more metric lives, each of a batch of its own."""
    states = [([u[0] for u in life], [u[1] for u in life], [u[2] for u in life]) for life in lives]
    options = {"single_life": len(lives) <= 1, **properties}

    batches = [Batch(size, columns, in_steps, "counted" if counted else None) for size in samples]
    words = {"batches": batches, "world_size": world_size, "scope": scope, "count": len(samples), **options}
    rows = SharedRows(build_table(states), partial(gather_facts, **words))
    rows.metrics.extend(_named(metrics).values())
    return Rank(rows, synchronises)


def _named(metrics: Metric | Mapping[str, Metric]) -> Mapping[str, Metric]:
    return {NAME: metrics} if isinstance(metrics, Metric) else metrics


def decide(
    ranks: Sequence[Rank],
    metrics: Metric | Mapping[str, Metric],
    scope: QueryScope = "auto",
    seeks_repeated: bool = False,
) -> Plan:
    """The plan of all ranks, after they have compared their queries where they must."""
    holders = [rank for rank in ranks if rank.rows.table is not None]
    facts = [rank.facts for rank in ranks]
    synchronises = any(rank.synchronises for rank in holders)
    plan = make_plan(facts, scope, seeks_repeated, synchronises)
    for number, rank in enumerate(ranks):
        rank.group = MetricGroup(range(len(ranks)), plan, number)
        for name, metric in _named(metrics).items():
            facts_by_rank = {
                number: _facts_of(metric, other)
                for number, other in enumerate(ranks)
                if other in holders or not holders
            }
            held = rank.rows.table is not None
            rank.group.add(name, Member(facts_by_rank, metric if held else None, rank.rows if held else None))
    if plan.compares:
        summaries = [rank.group.pack_summary() for rank in ranks]
        for number, rank in enumerate(ranks):
            rank.sent["summary"] = rank.group.summary_bytes(number)
            assert summaries[number].numel() == rank.sent["summary"]
            rank.group.compare(summaries)
    return ranks[0].group.plan


def _facts_of(metric: Metric, rank: Rank) -> SourceFacts:
    measure = measure_of(metric)
    mean = _compat.aggregation_of(metric) == "mean"
    kind = type(metric).__name__
    return SourceFacts(0, kind, "module.py", 1, synchronises=rank.synchronises, mean=mean, columns=measure.columns)


def exchange(ranks: Sequence[Rank]) -> None:
    """Values, and rows of split queries, to all, as the ranks would do it."""
    groups = [rank.group for rank in ranks]
    travels = [group.choose(lambda *_: True) for group in groups]
    if not travels[0]:
        return
    everyone = range(len(ranks))
    blocks = [group.pack_values() for group in groups]
    for number, rank in enumerate(ranks):
        assert all(blocks[other].numel() == rank.group.block_bytes(other) for other in everyone)
        rank.sent["values"] = blocks[number].numel()
    for group in groups:
        group.combine(blocks)


def combine(ranks: Sequence[Rank], name: str = NAME) -> list[MetricOutcome]:
    """The value that each rank arrives at."""
    plan = ranks[0].group.plan
    if (plan.replicated and not plan.first_counts) or len(ranks) == 1:
        return [rank.local.outcome(name) for rank in ranks]
    if "values" not in ranks[0].sent:
        exchange(ranks)
    views = [{view.name: view for view in rank.group.views()} for rank in ranks]
    return [view[name].outcome if name in view else MetricOutcome() for view in views]


def outcomes(
    metric: Metric, updates: Sequence[Sequence[Update]], scope: QueryScope = "auto", **options: Any
) -> list[MetricOutcome]:
    """The value on every rank, from the updates of every rank."""
    ranks = [
        make_rank([rank_updates] if rank_updates else [], metric, len(updates), scope=scope, **options)
        for rank_updates in updates
    ]
    decide(ranks, metric, scope)
    return combine(ranks)


def alone(metric: Metric, updates: Sequence[Sequence[Update]]) -> Any:
    """What torchmetrics itself computes in one process that sees the updates of all ranks."""
    single = metric.clone()
    for part in (part for rank in updates for part in rank):
        single.update(part[1], part[2], indexes=part[0])
    return single.compute()
