"""From the rows of all ranks to the values of the metrics that saw them, along a plan."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from copy import copy
from dataclasses import dataclass, replace
from functools import cached_property

import torch
from torch import Tensor
from torchmetrics import Metric

from lightning_retrieval_guard import _compat
from lightning_retrieval_guard.epoch.plan import ComparedQueries, Plan
from lightning_retrieval_guard.epoch.query_chunks import PackedQueries, Queries, QueryChunks, cut_chunks, join_chunks
from lightning_retrieval_guard.epoch.repeated_samples import rows_of_sample
from lightning_retrieval_guard.epoch.row_table import QueryKeys, RowTable, ScoredUpdate, UpdateRows, build_table
from lightning_retrieval_guard.epoch.values import (
    MetricOutcome,
    MetricScorer,
    Sum,
    Tally,
    Values,
    join_values,
    total,
)
from lightning_retrieval_guard.ranking.measures import measure_of
from lightning_retrieval_guard.ranking.score import EmptyQueryError


@dataclass(frozen=True)
class Scored:
    """Queries, and what each metric made of them.

    Attributes:
        lives: The metric life of every query, int64 of shape ``(queries,)``.
        values: By the name of the metric.
    """

    lives: Tensor
    values: dict[str, Values]

    def sums(self, name: str, mean: bool, width: int, counted: Tensor | None = None) -> Sum:
        """What one metric made of the queries that count, for its way to the other ranks."""
        values = self.values.get(name)
        if values is not None and counted is not None and values.error is None:
            values = values.of(counted)
        return Sum.of(values, self.lives, mean, width)


class LocalRows:
    """The rows of one rank that some metrics saw, as far as they count under a plan.

    Args:
        metrics: The metrics by name, ``None`` where this rank does not have one.
        table: The rows, ``None`` for no rows.
        chunks: The chunks of the table.
        plan: What all ranks agreed on.
        rank: The index of this rank among those that combine.
    """

    def __init__(
        self,
        metrics: Mapping[str, Metric | None],
        table: RowTable | None,
        chunks: QueryChunks | None,
        plan: Plan,
        rank: int,
    ) -> None:
        self.metrics = metrics
        self.plan = plan
        self.rank = rank
        self.copies = 1
        self.table, self.chunks, self._left_out = _leave_out_repeated(table, chunks, plan, rank)

    def with_plan(self, plan: Plan) -> LocalRows:
        """The same rows under a plan that was completed."""
        same = copy(self)
        same.plan = plan
        # what follows from the plan is worked out anew; the queries are the same under any plan
        for cached in ("scored_queries", "scorer", "as_combined"):
            vars(same).pop(cached, None)
        return same

    @cached_property
    def as_combined(self) -> LocalRows:
        """The rows as torchmetrics joins those of ranks that have the same: each once for each rank, by their ids."""
        same = self.with_plan(replace(self.plan, ids_restart=False))
        same.copies = len(self.plan.facts)
        return same

    @cached_property
    def queries(self) -> Queries:
        """The queries of this rank."""
        return join_chunks(self.chunks)[0]

    # --- scoring ----------------------------------------------------------------------------------------------

    @cached_property
    def scorer(self) -> MetricScorer:
        """The metrics."""
        return MetricScorer(self.metrics, self.plan.longest)

    @cached_property
    def scored_queries(self) -> Scored | None:
        """This rank's queries by themselves; where ids restart, those of every update."""
        # values of a step can be neither repeated nor completed by rows of another update
        if self.table is None or (self.table.scored and (self.copies > 1 or self.plan.lacks_rows)):
            return None
        table = self.table.repeated(self.copies)
        query_keys = QueryKeys(table, self.plan.ids_restart)
        keys, values = self.scorer.score(query_keys.of_rows(), table.preds, table.target)
        if table.scored:
            keys, values = _with_scored(table, query_keys, keys, values)
        return Scored(query_keys.lives(keys), values)

    def outcome(self, name: str) -> MetricOutcome:
        """The value of one metric where this rank's rows are all there is."""
        scored = self.scored_queries
        values = None if scored is None else scored.values.get(name)
        if self.table is None or scored is None or values is None:
            return MetricOutcome()
        if values.error is not None:
            return MetricOutcome(error=values.error)
        # every value by itself: a median needs more than a sum
        sums = scored.sums(name, mean=False, width=self.scorer.width(name))
        outcome = _outcome(self.scorer, name, [sums], False, self.longest_counted)
        # how torchmetrics' sort leaves equal scores is known on the CPU alone
        by_chance = values.decided_by_ties > 0 and self.table.query.device.type != "cpu"
        return replace(outcome, by_chance=by_chance)

    @property
    def longest_counted(self) -> int:
        """The most rows of any query that counts here by itself."""
        if self.chunks is None:
            return 0
        rows = (self.chunks if self.plan.ids_restart else self.queries).rows
        return int(rows.max()) * self.copies if rows.numel() else 0

    def sums(self, name: str, mean: bool, width: int, counted: Tensor | None) -> Sum:
        """What one metric made of this rank's queries.

        Args:
            name: The metric.
            mean: Whether its value is a mean.
            width: The columns of a value.
            counted: A boolean mask over the queries; ``None`` for all.
        """
        counted_once = self._sums(name, mean, width, counted)
        return replace(counted_once, tally=replace(counted_once.tally, twice=self._twice(name)))

    def _sums(self, name: str, mean: bool, width: int, counted: Tensor | None) -> Sum:
        if self.table is None or self.scored_queries is None:
            return Sum.nothing(mean, width)
        if counted is None:
            return self.scored_queries.sums(name, mean, width)
        values = self.scored_queries.values.get(name)
        if values is not None and values.error is not None and not self.table.scored:
            # the metric may refuse a part of a query that it takes as a whole
            return self._score_counted(self.table, self.queries, counted).sums(name, mean, width)
        # the queries are ordered by id, what was scored by life and id
        return self.scored_queries.sums(name, mean, width, counted[torch.argsort(self.queries.life, stable=True)])

    def _twice(self, name: str) -> float:
        """What the rows that the plan leaves out would add, if they counted beside the same rows of another rank."""
        if self._left_out is None:
            return 0.0
        if self.plan.ids_restart or not all(facts.one_query_a_sample for facts in self.plan.with_rows):
            return math.nan
        sums = []
        for copies in (1, 2):
            table = self._left_out.repeated(copies)
            _, values = self.scorer.score(table.query, table.preds, table.target)
            if name not in values or values[name].error is not None or values[name].values.shape[1] > 1:
                return math.nan
            sums.append(float(values[name].values.sum()))
        return sums[1] - sums[0]

    def _score_counted(self, table: RowTable, queries: Queries, counted: Tensor) -> Scored:
        """The queries that a boolean mask selects, as if there were no others."""
        query_of_row = _queries_of_rows(table, queries)
        rows = counted.to(query_of_row.device)[query_of_row]
        if not bool(rows.any()):
            return Scored(torch.zeros(0, dtype=torch.int64), {})
        query_keys = QueryKeys(table, ids_restart=False)
        keys, values = self.scorer.score(query_keys.of_rows()[rows], table.preds[rows], table.target[rows])
        return Scored(query_keys.lives(keys), values)

    # --- queries that lie on several ranks --------------------------------------------------------------------

    def packed(self, chosen: Tensor) -> PackedQueries:
        """The rows of some queries, each query's in order of arrival.

        Args:
            chosen: A boolean mask over the queries.
        """
        if self.table is None:
            return PackedQueries(torch.zeros(0, dtype=torch.float64), torch.zeros(0))
        query_of_row = _queries_of_rows(self.table, self.queries)
        rows = chosen.to(query_of_row.device)[query_of_row].nonzero().reshape(-1)
        # stable, because equal scores of a query are ranked in order of arrival
        rows = rows[torch.argsort(query_of_row[rows], stable=True)]
        # wide enough for the scores of any rank; the receivers go back to the common dtype
        return PackedQueries(self.table.preds[rows].double().cpu(), self.table.target[rows].float().cpu())


def score_split(
    scorer: MetricScorer,
    queries: ComparedQueries,
    rows: Sequence[PackedQueries],
    preds: torch.dtype,
    target: torch.dtype,
) -> tuple[Scored, int]:
    """Score the queries whose rows lie on several ranks.

    Args:
        scorer: The metrics.
        queries: These queries, in order of rank.
        rows: Their rows on every rank, in the same order.
        preds: The dtype of the scores.
        target: The dtype of the relevance.

    Returns:
        What each metric makes of them, and the most rows of any of them.
    """
    number = queries.number.repeat_interleave(queries.rows)
    relevance = torch.cat([part.target for part in rows])
    # relevance travels as floats, and torchmetrics refuses those for some metrics
    if not target.is_floating_point and bool((relevance == relevance.round()).all()):
        relevance = relevance.to(torch.promote_types(target, torch.int32))
    keys, values = scorer.score(number, torch.cat([part.preds for part in rows]).to(preds), relevance)
    # queries are numbered over all ranks, and the split ones are some of them
    size = int(keys.max()) + 1
    lives = torch.zeros(size, dtype=torch.int64).index_copy(0, queries.number, queries.life)
    return Scored(lives[keys], values), int(number.bincount().max())


def _outcome(scorer: MetricScorer, name: str, sums: Sequence[Sum], mean: bool, longest: int) -> MetricOutcome:
    measure = scorer.measures.get(name)
    length = None if measure is None else scorer.length(name, longest)
    try:
        return MetricOutcome(
            total(measure, sums, mean, length), tally=Tally.together([rank_sum.tally for rank_sum in sums])
        )
    except Exception as error:
        if measure is None or isinstance(measure.aggregation, str):
            raise
        return MetricOutcome(error=error)  # an aggregation of the user's: it belongs to whoever asks for the value


def _with_scored(
    table: RowTable, query_keys: QueryKeys, keys: Tensor, values: dict[str, Values]
) -> tuple[Tensor, dict[str, Values]]:
    """The values of rows that are here, and of updates that were scored when they came."""
    scored = [
        (query_keys.of(scored_update.queries[0], update), scored_update.values)
        for update, scored_update in table.scored.items()
    ]
    everything = torch.cat([keys, *(queries for queries, _ in scored)])
    # positions count within each part, so each part begins where the ones before it end
    starts = [0, *torch.tensor([keys.numel(), *(queries.numel() for queries, _ in scored)]).cumsum(0).tolist()]
    parts = [values_of_update for _, values_of_update in scored if values_of_update is not None]
    return everything, {name: join_values([values_of_rows, *parts], starts) for name, values_of_rows in values.items()}


def combined(
    local: LocalRows, name: str, sums: Mapping[int, Sum], split: Scored | None, mean: bool, width: int, longest: int
) -> MetricOutcome:
    """The value of one metric from what all ranks made of their queries, the same on every rank.

    Args:
        local: This rank's rows.
        name: The metric.
        sums: Of every rank that counts, by its index among those that combine.
        split: What this rank made of the queries whose rows lie on several ranks.
        mean: Whether the sums are those of a mean.
        width: The columns of a value.
        longest: The most rows of any query.
    """
    # the metric would have refused the rows of all ranks together
    failed = [index for index, rank_sum in sums.items() if rank_sum.failed]
    if failed:
        return MetricOutcome(error=_scoring_error(local, name, failed))
    everything = list(sums.values())
    if split is not None:
        error = split.values[name].error
        if error is not None:
            return MetricOutcome(error=error)
        everything.append(split.sums(name, mean, width))
    return _outcome(local.scorer, name, everything, mean, longest)


def _scoring_error(local: LocalRows, name: str, failed: Sequence[int]) -> Exception:
    # the error itself is known only where it was raised
    error = local.outcome(name).error if local.plan.first_like(local.rank) in failed else None
    if error is not None:
        return error
    metric, ranks = local.metrics[name], ", ".join(map(str, failed))
    if metric is not None and getattr(metric, "empty_target_action", None) == "error":
        wanted = "negative" if _compat.needs_irrelevant_row(metric) else "positive"
        return EmptyQueryError(f"`compute` method was provided with a query with no {wanted} target. (rank {ranks})")
    return RuntimeError(f"{type(metric).__name__} could not score the queries of rank {ranks}.")


def _leave_out_repeated(
    table: RowTable | None, chunks: QueryChunks | None, plan: Plan, rank: int
) -> tuple[RowTable | None, QueryChunks | None, RowTable | None]:
    """The rows that count, their chunks, and the rows that do not."""
    samples = dict(plan.padded)
    if table is None or chunks is None or rank not in samples:
        return table, chunks, None
    facts = plan.facts[rank]
    repeated = rows_of_sample(table, facts.last_samples, samples[rank], facts.last_batch)
    # values of whole updates cannot be taken apart into samples
    kept, left_out = table.without(repeated), replace(table.without(~repeated), scored={})
    if not len(kept) and not kept.scored:
        return None, None, left_out
    return kept, cut_chunks(kept, may_fold=chunks.folded), left_out


def _queries_of_rows(table: RowTable, queries: Queries) -> Tensor:
    """For every row the index of its query among the queries, int64 of shape ``(rows,)``."""
    ids = queries.query.to(table.query.device)
    if table.life_count == 1:
        return torch.searchsorted(ids.to(table.query.dtype), table.query)
    query_keys = QueryKeys(table, ids_restart=False)
    # the queries are ordered by id first, the keys by life
    order = torch.argsort(queries.life, stable=True)
    ascending = query_keys.of_lives(queries.query[order], queries.life[order]).to(ids.device)
    return order.to(ids.device)[torch.searchsorted(ascending, query_keys.of_rows())]


# --- updates whose rows do not stay -----------------------------------------------------------------------------


def score_update(rows: UpdateRows, metric: Metric) -> ScoredUpdate:
    """Score the queries of an update as if they were whole.

    Args:
        rows: Ids, scores and relevance, each of shape ``(rows,)`` with one row at least.
        metric: Says how.
    """
    ids, preds, target = rows
    table = build_table([([ids], [preds], [target])])
    assert table is not None
    chunks = cut_chunks(table)
    queries = torch.stack([chunks.query, chunks.rows, chunks.relevant, chunks.fingerprint])
    values = None
    if _is_scored_by_query(metric):
        _, scores = MetricScorer({"": metric}, 0).score(table.query, table.preds, table.target)
        values = None if scores[""].error is not None else _compact(scores[""])
    return ScoredUpdate(queries, values)


def _is_scored_by_query(metric: Metric) -> bool:
    measure = measure_of(metric)
    return measure is not None and measure.formula not in ("custom", "curve")


def _compact(values: Values) -> Values:
    """The same in as few bytes as hold it; scores in single precision give values in single precision."""
    single = values.values.float()
    return replace(values, values=single if bool((single.double() == values.values).all()) else values.values)
