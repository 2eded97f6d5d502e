"""Ranks in one process: what they tell each other is passed on by hand, with no process group."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torchmetrics import Metric

from lightning_retrieval_guard import _compat
from lightning_retrieval_guard.retrieval.combine import LocalRows, Outcome, block_sizes
from lightning_retrieval_guard.retrieval.facts import RowFacts, gather_facts
from lightning_retrieval_guard.retrieval.plan import Plan, compare_queries, make_plan
from lightning_retrieval_guard.retrieval.rows import Pieces, RowTable, build_table
from lightning_retrieval_guard.settings import QueryScope

Update = tuple[Tensor, Tensor, Tensor]  # ids, scores, relevance, each of shape (rows,)


def update(ids: Sequence[int], scores: Sequence[float], relevance: Sequence[int]) -> Update:
    return torch.tensor(ids), torch.tensor(scores), torch.tensor(relevance)


@dataclass
class Rank:
    """What one rank holds and has worked out."""

    table: RowTable | None
    facts: RowFacts
    pieces: Pieces | None
    local: LocalRows | None = None
    outcome: Outcome | None = None


def make_rank(
    lives: Sequence[Sequence[Update]],
    metric: Metric,
    world_size: int,
    samples: Sequence[int | None] = (),
    **properties: bool,
) -> Rank:
    """A rank with the updates of one or more metric lives."""
    states = [([u[0] for u in life], [u[1] for u in life], [u[2] for u in life]) for life in lives]
    table = build_table(states)
    told = {
        "opaque": not _compat.scores_by_query(metric),
        "mean": _compat.aggregation_of(metric) == "mean",
        "single_life": len(lives) <= 1,
        **properties,
    }
    facts, pieces = gather_facts(table, samples, world_size, **told)
    # a rank without rows has nothing to tell, not even the kind of metric
    return Rank(table, facts if table is not None else RowFacts(), pieces)


def decide(ranks: Sequence[Rank], metric: Metric, scope: QueryScope = "auto", repeated: int = 0) -> Plan:
    """The plan of all ranks; leaves what each rank counts under it in ``local``."""
    plan = make_plan([rank.facts for rank in ranks], scope, repeated)
    for number, rank in enumerate(ranks):
        rank.local = LocalRows(metric if rank.table is not None else None, rank.table, rank.pieces, plan, number)
    if plan.ask_queries:
        plan = compare_queries(plan, [rank.local.summary() for rank in ranks], scope)
        for rank in ranks:
            rank.local = rank.local.with_plan(plan)
    return plan


def combine(ranks: Sequence[Rank], plan: Plan) -> list[Outcome]:
    """The value that each rank arrives at."""
    if plan.gathered or len(ranks) == 1:
        return [rank.local.outcome() for rank in ranks]
    summaries = [rank.local.summary() for rank in ranks] if plan.ask_queries else []
    blocks = [rank.local.block(size) for rank, size in zip(ranks, block_sizes(plan, summaries), strict=True)]
    return [rank.local.combine(blocks) for rank in ranks]


def outcomes(
    metric: Metric, updates: Sequence[Sequence[Update]], scope: QueryScope = "auto", **options: Any
) -> list[Outcome]:
    """The value on every rank, from the updates of every rank."""
    ranks = [make_rank([own] if own else [], metric, len(updates), **options) for own in updates]
    return combine(ranks, decide(ranks, metric, scope))


def alone(metric: Metric, updates: Sequence[Sequence[Update]]) -> Any:
    """What torchmetrics itself computes in one process that sees the updates of all ranks."""
    own = metric.clone()
    for part in (part for rank in updates for part in rank):
        own.update(part[1], part[2], indexes=part[0])
    return own.compute()
