"""Which rows count, and which travel: decided from what every rank has."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import combinations
from typing import Literal

import torch
from torch import Tensor

from lightning_retrieval_guard.retrieval.facts import RowFacts
from lightning_retrieval_guard.settings import QueryScope

QueryKey = tuple[int, int]


@dataclass(frozen=True)
class Plan:
    """How the rows of all ranks become one number.

    Attributes:
        facts: What each rank told.
        gathered: All ranks hold the same rows, so each counts its own and nothing travels.
        restarting: Ids restart, so each update keeps its queries to itself.
        drop: What a rank whose last sample is a repeated one leaves out.
        repeated: The number of samples that the sampler repeated.
        ask_queries: Whether the ranks must compare their queries before anything else can be decided.
        split: Queries whose rows lie on several ranks.
        duplicates: Queries that several ranks hold with identical rows, each with the rank that counts it.
    """

    facts: tuple[RowFacts, ...]
    gathered: bool = False
    restarting: bool = False
    drop: Literal["nothing", "row", "query"] = "nothing"
    repeated: int = 0
    ask_queries: bool = False
    split: frozenset[QueryKey] = frozenset()
    duplicates: Mapping[QueryKey, int] = field(default_factory=dict)

    @property
    def left_out(self) -> int:
        """Samples that the plan counts once although the sampler repeated them."""
        if self.drop != "nothing":
            return self.repeated
        return len(self.duplicates)

    @property
    def mean(self) -> bool:
        """Whether the value is a mean over queries."""
        return all(facts.mean for facts in self.facts if facts.rows)

    @property
    def opaque(self) -> bool:
        """Whether only the metric's own ``compute()`` can score."""
        return any(facts.opaque for facts in self.facts if facts.rows)

    @property
    def is_ambiguous(self) -> bool:
        """Whether an id stands in several updates or on several ranks, and nothing tells why."""
        return not self.restarting and (bool(self.split) or any(facts.restarts for facts in self.facts))

    @property
    def uneven(self) -> bool:
        """Whether the ranks updated unequally often."""
        return len({facts.updates for facts in self.facts}) > 1

    @property
    def has_rows(self) -> bool:
        """Whether any rank holds a row."""
        return any(facts.rows for facts in self.facts)


def make_plan(facts: Sequence[RowFacts], scope: QueryScope, repeated: int) -> Plan:
    """Decide what can be decided from the facts alone.

    Args:
        facts: Of every rank, in order of rank.
        scope: What the user declared about query ids.
        repeated: How many samples the sampler repeated over all ranks.
    """
    holders = [own for own in facts if own.rows]
    gathered = len(facts) > 1 and _all_same(facts)
    restarting = scope == "batch" or (
        scope == "auto" and any(own.restarts for own in holders) and _one_query_a_sample(holders, gathered)
    )
    drop = _what_to_drop(holders) if repeated and not gathered else "nothing"
    joins = any(own.synchronises or own.single_life for own in holders)
    asks = not gathered and not restarting and joins and _ranges_overlap(holders)
    return Plan(tuple(facts), gathered, restarting, drop, repeated, asks)


def _all_same(facts: Sequence[RowFacts]) -> bool:
    first = facts[0]
    return first.rows > 0 and all((own.rows, own.fingerprint) == (first.rows, first.fingerprint) for own in facts)


def _one_query_a_sample(holders: Sequence[RowFacts], gathered: bool) -> bool:
    if gathered:
        return all(own.one_query_a_global_sample or own.one_query_a_sample for own in holders)
    return all(own.one_query_a_sample for own in holders)


def _what_to_drop(holders: Sequence[RowFacts]) -> Literal["nothing", "row", "query"]:
    if all(own.one_query_a_sample for own in holders):
        return "query"
    if all(own.one_row_a_sample for own in holders):
        return "row"
    return "nothing"


def _ranges_overlap(holders: Sequence[RowFacts]) -> bool:
    return any(a.id_min <= b.id_max and b.id_min <= a.id_max for a, b in combinations(holders, 2))


def compare_queries(plan: Plan, ranks: Sequence[Tensor], scope: QueryScope) -> Plan:
    """Decide the rest from the queries of every rank.

    Args:
        plan: What was decided so far.
        ranks: For every rank, int64 of shape ``(4, queries)``: metric life, id, fingerprint and number of rows.
        scope: What the user declared about query ids.
    """
    same: dict[QueryKey, int] = {}
    different: set[QueryKey] = set()
    for key, copies in _shared(ranks).items():
        if len({content for content, _ in copies}) == 1:
            same[key] = min(rank for _, rank in copies)
        else:
            different.add(key)
    holders = [own for own in plan.facts if own.rows]
    if scope == "auto" and different and _one_query_a_sample(holders, gathered=False):
        return replace(plan, restarting=True)
    duplicates = same if len(same) <= plan.repeated else {}
    split = different | (same.keys() - duplicates.keys())
    return replace(plan, split=frozenset(split), duplicates=duplicates)


def _shared(ranks: Sequence[Tensor]) -> dict[QueryKey, list[tuple[tuple[int, int], int]]]:
    """The queries that stand on several ranks, with content and rank of each copy."""
    owners = torch.cat([torch.full((own.shape[1],), rank) for rank, own in enumerate(ranks)])
    everything = torch.cat(list(ranks), dim=1)
    if not owners.numel():
        return {}
    _, key = everything[:2].unique(dim=1, return_inverse=True)
    shared = torch.bincount(key)[key] > 1
    found: dict[QueryKey, list[tuple[tuple[int, int], int]]] = defaultdict(list)
    columns = everything[:, shared].t().tolist()
    for (life, query, fingerprint, rows), owner in zip(columns, owners[shared].tolist(), strict=True):
        found[(life, query)].append(((fingerprint, rows), owner))
    return found
