"""The value over simulated ranks against plain torchmetrics in one process that sees all rows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torchmetrics import Metric
from torchmetrics.retrieval import (
    RetrievalAUROC,
    RetrievalFallOut,
    RetrievalHitRate,
    RetrievalMAP,
    RetrievalMRR,
    RetrievalNormalizedDCG,
    RetrievalPrecision,
    RetrievalPrecisionRecallCurve,
    RetrievalRecall,
    RetrievalRPrecision,
)

from lightning_retrieval_guard.epoch.query_chunks import PackedQueries
from lightning_retrieval_guard.ranking.score import EmptyQueryError

from .simulated import NAME, Rank, Update, alone, combine, decide, exchange, make_rank, outcomes, update

WITH_CUT = (
    RetrievalMRR,
    RetrievalMAP,
    RetrievalPrecision,
    RetrievalRecall,
    RetrievalHitRate,
    RetrievalFallOut,
    RetrievalNormalizedDCG,
    RetrievalAUROC,
)
ALL = (*WITH_CUT, RetrievalRPrecision)


def centre(values: torch.Tensor, dim: int | None = None) -> torch.Tensor:
    """An aggregation of the user's own."""
    return values.min() + 0.25 * values.max()


@dataclass(frozen=True)
class Spread:
    """Rows with distinct scores, each on some rank in some update; queries may be split in any way."""

    world_size: int
    seed: int
    queries: int
    whole: bool
    signed: bool

    def updates(self) -> list[list[Update]]:
        rng = np.random.default_rng(self.seed)
        sizes = rng.integers(1, 7, self.queries)
        query = np.repeat(rng.permutation(50)[: self.queries] - 10, sizes)
        score = (rng.permutation(len(query)) + 1.0) / (len(query) + 1) - 0.45 * self.signed
        relevance = (rng.random(len(query)) < 0.4).astype(np.int64)
        places = rng.integers(0, 3 * self.world_size, self.queries if self.whole else len(query))
        update_of_row = np.repeat(places, sizes) if self.whole else places
        parts: list[list[Update]] = [[] for _ in range(self.world_size)]
        for number in np.unique(update_of_row):
            rows = rng.permutation(np.flatnonzero(update_of_row == number))
            columns = (query[rows], score[rows].astype(np.float32), relevance[rows])
            parts[number % self.world_size].append(tuple(map(torch.from_numpy, columns)))
        return parts


spreads = st.builds(
    Spread,
    world_size=st.integers(1, 4),
    seed=st.integers(0, 2**32 - 1),
    queries=st.integers(1, 8),
    whole=st.booleans(),
    signed=st.booleans(),
)
aggregations = st.sampled_from(["mean", "median", "min", "max", centre])
actions = st.sampled_from(["neg", "pos", "skip"])
cuts = st.sampled_from([None, 1, 2, 4, 30])
quick = settings(max_examples=25, deadline=None)


def assert_same(metric: Metric, updates: Sequence[Sequence[Update]]) -> None:
    wanted = alone(metric, updates)
    holders = [
        outcome for outcome, rank_updates in zip(outcomes(metric, updates), updates, strict=True) if rank_updates
    ]
    for outcome in holders:
        assert outcome.error is None
        torch.testing.assert_close(_comparable(outcome.value), _comparable(wanted), rtol=1e-6, atol=1e-6)


def _comparable(value: Any) -> Any:
    parts = value if isinstance(value, tuple) else (value,)
    return [torch.as_tensor(part, dtype=torch.float64) for part in parts]


@pytest.mark.parametrize("kind", WITH_CUT, ids=lambda kind: kind.__name__)
@quick
@given(spread=spreads, top_k=cuts, action=actions, aggregation=aggregations)
def test_with_a_cut(kind: type[Metric], spread: Spread, top_k: Any, action: Any, aggregation: Any) -> None:
    assert_same(kind(top_k=top_k, empty_target_action=action, aggregation=aggregation), spread.updates())


@quick
@given(spread=spreads, action=actions, aggregation=aggregations)
def test_r_precision(spread: Spread, action: Any, aggregation: Any) -> None:
    assert_same(RetrievalRPrecision(empty_target_action=action, aggregation=aggregation), spread.updates())


@quick
@given(spread=spreads, top_k=st.integers(1, 9), adaptive=st.booleans(), action=actions)
def test_precision_with_an_adaptive_cut(spread: Spread, top_k: int, adaptive: bool, action: Any) -> None:
    assert_same(RetrievalPrecision(top_k=top_k, adaptive_k=adaptive, empty_target_action=action), spread.updates())


@quick
@given(spread=spreads, max_k=st.sampled_from([None, 1, 3, 9]), adaptive=st.booleans(), action=actions)
def test_the_precision_recall_curve(spread: Spread, max_k: Any, adaptive: bool, action: Any) -> None:
    metric = RetrievalPrecisionRecallCurve(max_k=max_k, adaptive_k=adaptive, empty_target_action=action)
    assert_same(metric, spread.updates())


@quick
@given(spread=spreads)
def test_graded_relevance(spread: Spread) -> None:
    updates = [
        [(ids, scores, relevance * (1 + ids.abs() % 3)) for ids, scores, relevance in rank_updates]
        for rank_updates in spread.updates()
    ]
    assert_same(RetrievalNormalizedDCG(top_k=3), updates)


@quick
@given(spread=spreads)
def test_all_ranks_with_rows_have_the_very_same_number(spread: Spread) -> None:
    updates = spread.updates()
    values = {
        outcome.value
        for outcome, rank_updates in zip(outcomes(RetrievalMAP(), updates), updates, strict=True)
        if rank_updates
    }
    assert len(values) == 1


@quick
@given(spread=spreads, kind=st.sampled_from(ALL))
def test_a_rank_without_rows_has_the_number_too_where_queries_are_whole(spread: Spread, kind: type[Metric]) -> None:
    updates = replace(spread, whole=True).updates()
    assert outcomes(kind(), [*updates, []])[-1].value == pytest.approx(float(alone(kind(), updates)), abs=1e-6)


@quick
@given(spread=spreads, kind=st.sampled_from(ALL), top_k=st.sampled_from([1, 3]))
def test_gathered_rows_count_once_and_as_torchmetrics_has_it_once_a_rank(
    spread: Spread, kind: type[Metric], top_k: int
) -> None:
    rows = [part for rank_updates in spread.updates() for part in rank_updates]
    metric = kind() if kind is RetrievalRPrecision else kind(top_k=top_k)
    ranks = [make_rank([rows], metric, 2) for _ in range(2)]
    plan = decide(ranks, metric)
    assert plan.replicated
    for outcome in combine(ranks):
        assert outcome.value == pytest.approx(float(alone(metric, [rows])), abs=1e-6)
    # copies tie: torchmetrics has them rank after rank, for one update after the other
    wanted = alone(metric, [[part for part in rows for _ in ranks]])
    assert ranks[0].local.as_combined.outcome(NAME).value == pytest.approx(float(wanted), abs=1e-6)


@quick
@given(spread=spreads, kind=st.sampled_from(ALL), aggregation=aggregations, action=actions)
def test_ties_of_gathered_rows_fall_as_on_the_first_rank(
    spread: Spread, kind: type[Metric], aggregation: Any, action: Any
) -> None:
    rows = [part for rank_updates in spread.updates() for part in rank_updates]
    first = [(ids, (scores * 3).round() / 4, relevance) for ids, scores, relevance in rows]
    other = [tuple(column.flip(0) for column in part) for part in reversed(first)]
    metric = kind(aggregation=aggregation, empty_target_action=action)
    ranks = [make_rank([rank_updates], metric, 2) for rank_updates in (first, other)]
    assert decide(ranks, metric).replicated
    values = [outcome.value for outcome in combine(ranks)]
    torch.testing.assert_close(_comparable(values[0]), _comparable(alone(metric, [first])), rtol=1e-6, atol=1e-6)
    assert values[0] == values[1]


@pytest.mark.parametrize("interleaved", [False, True])
@pytest.mark.parametrize("whole", [True, False])
@quick
@given(
    seed=st.integers(0, 2**32 - 1),
    kind=st.sampled_from(ALL),
    aggregation=aggregations,
    action=actions,
    size=st.integers(2, 3),
)
def test_one_rank_of_each_class_of_equal_ranks_counts(
    seed: int, kind: type[Metric], aggregation: Any, action: Any, size: int, whole: bool, interleaved: bool
) -> None:
    """Two sets of rows, each on two or three ranks; the number is that of one process."""
    first, second = scattered(2, 6, 5, seed) if not whole else shards(seed)
    metric = kind(aggregation=aggregation, empty_target_action=action)
    updates = [first, second] * size if interleaved else [first] * size + [second] * size
    ranks = [make_rank([rank_updates], metric, 2 * size) for rank_updates in updates]
    plan = decide(ranks, metric)
    assert len(plan.counted) == 2
    assert not plan.replicated
    wanted = alone(metric, [first, second])
    outcomes_of_all = combine(ranks)
    for outcome in outcomes_of_all:
        torch.testing.assert_close(_comparable(outcome.value), _comparable(wanted), rtol=1e-6, atol=1e-6)
    assert {rank.group.views()[0].as_combined for rank in ranks} == {None}  # which rows tie in which order is not known
    assert len({outcome.value for outcome in outcomes_of_all}) == 1
    sent = [rank.sent["values"] for rank in ranks]
    assert [size > 0 for size in sent] == [rank in plan.counted for rank in range(len(ranks))]


def shards(seed: int) -> list[list[Update]]:
    """Whole queries on two ranks."""
    [updates] = scattered(1, 8, 5, seed)
    masks = [[(part, part[0] % 2 == rank) for part in updates] for rank in range(2)]
    return [[tuple(column[mask] for column in part) for part, mask in rank_masks if mask.any()] for rank_masks in masks]


def test_an_error_of_a_class_is_an_error_on_every_rank() -> None:
    metric = RetrievalMRR(empty_target_action="error")
    errors = [outcome.error for outcome in outcomes(metric, [[FINE], [FINE], [EMPTY], [EMPTY]])]
    assert all(isinstance(error, EmptyQueryError) for error in errors)
    assert [str(error).endswith("(rank 2)") for error in errors] == [True, True, False, False]


def test_two_ranks_that_are_equal_by_chance_both_count() -> None:
    """Others are not, so nothing says that the two stand for one."""
    updates = [[update([0, 0], [0.9, 0.1], [0, 1])]] * 2 + [[FINE], [update([3, 3], [0.5, 0.4], [1, 0])]]
    metric = RetrievalRecall(top_k=2)
    for outcome in outcomes(metric, updates):
        assert outcome.value == pytest.approx(float(alone(metric, updates)))


def test_gathered_rows_that_cannot_be_scored_are_an_error_on_every_rank() -> None:
    rows = [update([0, 0, 1, 1], [0.5, 0.5, 0.25, 0.75], [1, 0, 0, 0])]
    turned = [update([1, 1, 0, 0], [0.75, 0.25, 0.5, 0.5], [0, 0, 0, 1])]
    metric = RetrievalMRR(empty_target_action="error")
    ranks = [make_rank([rank_updates], metric, 2) for rank_updates in (rows, turned)]
    assert decide(ranks, metric).first_counts
    errors = [outcome.error for outcome in combine(ranks)]
    assert [str(error) for error in errors] == [
        "`compute` method was provided with a query with no positive target."
    ] * 2


@quick
@given(spread=spreads, kind=st.sampled_from(ALL))
def test_ids_that_restart_give_each_update_its_own_queries(spread: Spread, kind: type[Metric]) -> None:
    updates = spread.updates()
    apart = [
        [
            (ids + 100 * (number + 10 * rank), scores, relevance)
            for number, (ids, scores, relevance) in enumerate(rank_updates)
        ]
        for rank, rank_updates in enumerate(updates)
    ]
    wanted = float(alone(kind(), apart))
    for outcome, rank_updates in zip(outcomes(kind(), updates, scope="batch"), updates, strict=True):
        if rank_updates:
            assert outcome.value == pytest.approx(wanted, abs=1e-6)


def test_restarting_ids_give_each_update_its_own_curves() -> None:
    first, second = update([0, 0, 1, 1], [0.9, 0.1, 0.6, 0.2], [1, 0, 0, 1]), update([0, 0], [0.8, 0.7], [0, 1])
    metric = RetrievalPrecisionRecallCurve(max_k=2)
    wanted = alone(metric, [[first, update([2, 2], [0.8, 0.7], [0, 1])]])
    for ranks, scope in (([[first, second]], "auto"), ([[first], [second]], "batch")):
        for outcome in outcomes(metric, ranks, samples=[2, 1], scope=scope):
            torch.testing.assert_close(_comparable(outcome.value), _comparable(wanted))


def test_a_repeated_query_counts_once() -> None:
    hit, miss = update([0, 0], [0.9, 0.1], [1, 0]), update([1, 1], [0.8, 0.7], [0, 1])
    last = update([2, 2], [0.6, 0.5], [0, 1])
    ends = (([hit, last], {"is_repeated": True}), ([miss, hit], {"repeats": 0}))
    for metric in (RetrievalMRR(), RetrievalPrecisionRecallCurve(max_k=2)):
        ranks = [make_rank([rank_updates], metric, 2, [1, 1], **end) for rank_updates, end in ends]
        decide(ranks, metric, seeks_repeated=True)
        for outcome in combine(ranks):
            wanted = alone(metric, [[hit, last, miss]])
            torch.testing.assert_close(_comparable(outcome.value), _comparable(wanted))


def test_several_lives_are_averaged_by_their_queries() -> None:
    hit, miss = update([0, 0], [0.9, 0.1], [1, 0]), update([0, 0], [0.8, 0.7], [0, 1])
    pair = update([0, 0, 1, 1], [0.9, 0.1, 0.8, 0.7], [0, 1, 0, 1])
    mean = make_rank([[hit], [pair]], RetrievalMRR(), 1)
    decide([mean], RetrievalMRR())
    assert mean.local.outcome(NAME).value == pytest.approx((1 + 0.5 + 0.5) / 3)
    best = RetrievalMRR(aggregation="max")
    lives = make_rank([[hit], [pair], [miss]], best, 1)
    decide([lives], best)
    assert lives.local.outcome(NAME).value == pytest.approx((1 + 2 * 0.5 + 0.5) / 4)


def test_double_scores_keep_their_precision() -> None:
    close = [torch.tensor([0.5, 0.5 + 1e-12], dtype=torch.float64)] * 2
    ids, relevance = torch.tensor([0, 0]), torch.tensor([0, 1])
    other = (ids, torch.tensor([0.4, 0.3], dtype=torch.float64), torch.tensor([0, 0]))
    assert_same(RetrievalMRR(), [[(ids, close[0], relevance)], [other]])


# --- errors ---------------------------------------------------------------------------------------------------

EMPTY, FULL = update([0, 0], [0.9, 0.1], [0, 0]), update([1, 1], [0.8, 0.7], [1, 1])
FINE = update([2, 2], [0.6, 0.5], [0, 1])


@pytest.mark.parametrize(
    ("kind", "bad", "wanted"), [(RetrievalMRR, EMPTY, "positive"), (RetrievalFallOut, FULL, "negative")]
)
@pytest.mark.parametrize("bad_rank", [0, 1])
def test_an_empty_query_raises_the_error_of_torchmetrics_on_every_rank(
    kind: type[Metric], bad: Update, wanted: str, bad_rank: int
) -> None:
    metric = kind(empty_target_action="error")
    updates = [[FINE], [bad]] if bad_rank else [[bad], [FINE]]
    with pytest.raises(ValueError, match=wanted) as raised:
        alone(metric, updates)
    for outcome in outcomes(metric, updates):
        assert isinstance(outcome.error, EmptyQueryError)
        assert str(raised.value) in str(outcome.error)
        assert outcome.value is None


def test_an_error_of_a_metric_of_the_user_comes_up_on_every_rank() -> None:
    class Broken(RetrievalMRR):
        def _metric(self, preds: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
            raise KeyError("own code")

    for outcome in outcomes(Broken(), [[FINE], [EMPTY]], samples=()):
        assert outcome.error is not None
        assert outcome.value is None


def test_no_rows_have_no_value() -> None:
    assert [outcome.value for outcome in outcomes(RetrievalMRR(), [[]])] == [None]


# --- what travels ---------------------------------------------------------------------------------------------


def scattered(world_size: int, queries: int, rows: int, seed: int = 0, per_rank: int = 2) -> list[list[Update]]:
    """Each row of each query on some rank."""
    rng = np.random.default_rng(seed)
    query = rng.permutation(np.repeat(np.arange(queries), rows))
    score = ((rng.permutation(len(query)) + 1.0) / (len(query) + 1)).astype(np.float32)
    relevance = (rng.random(len(query)) < 0.3).astype(np.int64)
    update_of_row = rng.integers(0, world_size * per_rank, len(query))
    columns = [
        [column[update_of_row == number] for column in (query, score, relevance)]
        for number in range(update_of_row.max() + 1)
    ]
    updates = [tuple(map(torch.from_numpy, update_columns)) for update_columns in columns]
    return [updates[rank::world_size] for rank in range(world_size)]


HEAD, METRIC_HEAD = 3, 4  # words before the values of all metrics, and before those of each
PANEL = {"mrr": RetrievalMRR(), "recall": RetrievalRecall(top_k=3), "map": RetrievalMAP(aggregation="median")}


def together(metrics: dict[str, Metric], updates: list[list[Update]], **options: Any) -> list[Rank]:
    ranks = [make_rank([rank_updates], metrics, len(updates), **options) for rank_updates in updates]
    decide(ranks, metrics)
    for name, metric in metrics.items():
        for outcome in combine(ranks, name):
            assert outcome.value == pytest.approx(float(alone(metric, updates)), abs=1e-6), name
    return ranks


@pytest.mark.parametrize("world_size", [2, 3, 4])
def test_the_rows_of_split_queries_go_to_everyone_with_the_values(world_size: int) -> None:
    for rank in together(PANEL, scattered(world_size, 40, 30)):
        assert rank.sent["summary"] == 32 * rank.facts.queries
        # two means, and a value and a life for each query
        values = 8 * (HEAD + 3 * METRIC_HEAD + 1 + 1 + 2 * rank.facts.queries)
        assert rank.sent["values"] == values + 12 * rank.facts.rows


def test_only_split_queries_send_rows() -> None:
    whole, first, second = (
        update([0, 0], [0.9, 0.1], [1, 0]),
        update([5], [0.2], [1]),
        update([5, 5], [0.7, 0.1], [0, 0]),
    )
    ranks = together({"mrr": RetrievalMRR()}, [[whole, first], [second]])
    assert [rank.sent["values"] for rank in ranks] == [
        8 * (HEAD + METRIC_HEAD + 1) + 12,
        8 * (HEAD + METRIC_HEAD + 1) + 24,
    ]


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16], ids=str)
def test_a_rank_without_rows_scores_split_queries_in_the_precision_of_the_others(dtype: torch.dtype) -> None:
    """Ties are those of the dtype, and the value is rounded to it."""
    close = torch.tensor([0.5, 0.5 + 1e-3, 0.25], dtype=torch.float64)
    parts = [(torch.tensor([7]), close[row : row + 1].to(dtype), torch.tensor([row])) for row in (0, 1)]
    metric = RetrievalMRR()
    ranks = [make_rank([[part]], metric, 3) for part in parts] + [make_rank([], metric, 3)]
    decide(ranks, metric)
    ranks[2].group.local.metrics[NAME] = metric  # as in a program in which every rank has the module
    exchange(ranks)
    values = {rank.group.views()[0].outcome.value for rank in ranks}
    assert values == {float(alone(metric, [parts]))}


@pytest.mark.parametrize("queries", [10, 1000])
def test_whole_queries_cost_a_constant_number_of_bytes_for_a_mean(queries: int) -> None:
    updates = scattered(1, queries, 5)[0]
    parts = [[], []]
    for ids, scores, relevance in updates:
        for rank, part in enumerate(parts):
            of_rank = ids % 2 == rank
            part.append((ids[of_rank], scores[of_rank], relevance[of_rank]))
    metrics = {"mrr": RetrievalMRR(), "recall": RetrievalRecall(top_k=3)}
    ranks = together(metrics, parts)
    for rank in ranks:
        assert not rank.group.plan.compares  # even and odd ids cannot meet
        assert rank.sent == {"values": 8 * (HEAD + 2 * (METRIC_HEAD + 1))}


@quick
@given(spread=spreads, seeks=st.booleans(), action=actions, aggregation=st.sampled_from(["mean", "median"]))
def test_repeated_queries_count_once(spread: Spread, seeks: bool, action: Any, aggregation: Any) -> None:
    """The first sample of rank zero is the last one of the last rank too."""
    spread = replace(spread, whole=True, world_size=max(2, spread.world_size))
    sample = update([999, 999], [0.35, 0.85], [1, 0])
    [first, *others] = spread.updates()
    doubled = [[sample, *first], *others[:-1], [*others[-1], sample]]
    metric = RetrievalRecall(top_k=2, empty_target_action=action, aggregation=aggregation)
    wanted = [[sample, *first], *others] if seeks else doubled
    ranks = [
        make_rank(
            [rank_updates] if rank_updates else [],
            metric,
            len(doubled),
            [1 if part is sample else len(rank_updates) + 9 for part in rank_updates],
            is_repeated=rank == 0,
            repeats=0 if rank == len(doubled) - 1 else None,
        )
        for rank, rank_updates in enumerate(doubled)
    ]
    assume(not decide(ranks, metric, seeks_repeated=seeks).replicated)
    for outcome, rank_updates in zip(combine(ranks), doubled, strict=True):
        if rank_updates:
            assert outcome.value == pytest.approx(float(alone(metric, wanted)), abs=1e-6)


@pytest.mark.parametrize(("rows", "queries", "levels"), [(300, 8, 20), (40_000, 300, 90)])
@pytest.mark.parametrize("kind", ALL, ids=lambda kind: kind.__name__)
def test_on_one_device_ties_fall_as_they_do_in_torchmetrics(
    kind: type[Metric], rows: int, queries: int, levels: int
) -> None:
    rng = np.random.default_rng(1)
    ids, scores = rng.integers(0, queries, rows), rng.integers(0, levels, rows).astype(np.float32) / levels - 0.1
    relevance = (rng.random(rows) < 0.3).astype(np.int64)
    columns = [torch.from_numpy(column).split(rows // 3) for column in (ids, scores, relevance)]
    metric = kind() if kind is RetrievalRPrecision else kind(top_k=5)
    updates = list(zip(*columns, strict=True))
    [outcome] = outcomes(metric, [updates])
    assert outcome.value == pytest.approx(float(alone(metric, [updates])), abs=1e-6)


def test_scores_travel_in_double_precision() -> None:
    preds = torch.tensor([0.5, 0.5 + 1e-15], dtype=torch.float64)
    packed = PackedQueries(preds, torch.tensor([0.0, 1.0]))
    came = PackedQueries.unpack(packed.pack())
    assert came.preds.tolist() == preds.tolist()
    assert came.preds[0] != came.preds[1]
    assert came.target.tolist() == [0.0, 1.0]
