"""What is left of an update once its rows cannot be seen again gives the same facts and the same numbers."""

from __future__ import annotations

import gc
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torchmetrics import Metric
from torchmetrics.retrieval import (
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

from lightning_retrieval_guard import _compat
from lightning_retrieval_guard.epoch.digest import digest_rows
from lightning_retrieval_guard.epoch.row_facts import RowFacts, gather_facts
from lightning_retrieval_guard.epoch.row_table import Digest, build_table
from lightning_retrieval_guard.ranking.measures import measure_of
from lightning_retrieval_guard.run.sources import SharedRows
from lightning_retrieval_guard.watch import ended
from lightning_retrieval_guard.watch.metric_lives import MetricLife
from lightning_retrieval_guard.watch.metrics import MetricWatch, Origin

from .listening import Listener
from .simulated import NAME, Rank, Update, alone, combine, decide

quick = settings(max_examples=15, deadline=None)
CUT = (RetrievalMRR, RetrievalMAP, RetrievalRecall, RetrievalPrecision, RetrievalHitRate, RetrievalFallOut)
METRICS = (*CUT, RetrievalNormalizedDCG, RetrievalPrecisionRecallCurve)
LivesOfRank = list[list[Update]]


def make(kind: type[Metric], top_k: int | None, **options: Any) -> Metric:
    name = "max_k" if kind is RetrievalPrecisionRecallCurve else "top_k"
    return kind(**({} if top_k is None else {name: top_k}), **options)


def rows_of(seed: int, updates: int, queries: int, rows: int, source: int = 0) -> list[Update]:
    """Updates that may hold the same queries, with scores that differ from each other and from other sources'."""
    rng = np.random.default_rng(seed + source)
    score = (rng.permutation(updates * rows) + source / 32) / (updates * rows) - 0.3
    found = []
    for own in np.split(score, updates):
        ids = rng.integers(0, queries, rows)
        columns = (ids, own.astype(np.float32), (rng.random(rows) < 0.3).astype(np.int64))
        found.append(tuple(map(torch.from_numpy, columns)))
    return found


def ranks_of(
    lives: Sequence[LivesOfRank], metric: Metric, final: bool, digest: bool, scope: str = "auto", settles: bool = False
) -> tuple[list[Rank], int]:
    """Ranks that have digested all updates but the last, and how many rows they hold."""
    ranks, held = [], 0
    for own in lives:
        states, digests, number = [], {}, 0
        for life in own:
            kept = []
            for rows in life:
                is_last = life is own[-1] and rows is life[-1]
                if digest and not is_last and not (settles and len(life) > 1):
                    found = digest_rows((rows[0], rows[1], rows[2]), [measure_of(metric)], final, settles)
                    rows, digests[number] = found or (rows, None)
                kept.append(rows)
                number += 1
            states.append(tuple(zip(*kept, strict=True)))
        table = build_table(states, {update: known for update, known in digests.items() if known is not None})
        held += len(table)
        ranks.append(Rank(_row_set(table, metric, len(lives), len(own) == 1, scope)))
    return ranks, held


def _row_set(table: Any, metric: Metric, world_size: int, single: bool, scope: str) -> SharedRows:
    def tell(rows: SharedRows) -> Any:
        options = {"scope": scope, "single_life": single}
        return gather_facts(rows.table, (), world_size, **options)

    rows = SharedRows(table, tell)
    rows.metrics.append(metric)
    return rows


def values(ranks: Sequence[Rank], metric: Metric, scope: str) -> list[Any]:
    decide(ranks, metric, scope)
    return [outcome.value for outcome in combine(ranks)]


def same(one: Any, other: Any) -> None:
    parts = [value if isinstance(value, tuple) else (value,) for value in (one, other)]
    for a, b in zip(*parts, strict=True):
        torch.testing.assert_close(torch.as_tensor(a).double(), torch.as_tensor(b).double(), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("kind", [*METRICS, RetrievalRPrecision])
@quick
@given(
    seed=st.integers(0, 2**32 - 1),
    world_size=st.integers(1, 3),
    top_k=st.sampled_from([1, 5]),
    action=st.sampled_from(["neg", "pos", "skip"]),
    aggregation=st.sampled_from(["mean", "median"]),
)
def test_complete_queries_need_no_rows(
    kind: type[Metric], seed: int, world_size: int, top_k: int, action: str, aggregation: str
) -> None:
    """Each update a metric life of its own that no other rank adds to."""
    cut = None if kind is RetrievalRPrecision else top_k
    metric = make(kind, cut, empty_target_action=action, aggregation=aggregation)
    spread = [[[rows] for rows in rows_of(seed, 3, 4, 25, rank)] for rank in range(world_size)]
    full, _ = ranks_of(spread, metric, False, False)
    digested, left = ranks_of(spread, metric, True, True)
    assert left == 25 * world_size  # the last update waits
    for rank in (*full, *digested):
        rank.synchronises = False
    for one, other in zip(full, digested, strict=True):
        assert facts_of_all(one) == facts_of_all(other)
    for one, other in zip(values(full, metric, "auto"), values(digested, metric, "auto"), strict=True):
        same(one, other)


@pytest.mark.parametrize("kind", [*METRICS, RetrievalRPrecision])
@quick
@given(
    seed=st.integers(0, 2**32 - 1),
    queries=st.integers(1, 6),
    last=st.integers(0, 2),
    action=st.sampled_from(["neg", "pos", "skip"]),
    aggregation=st.sampled_from(["mean", "median", "max"]),
    scope=st.sampled_from(["auto", "global", "batch"]),
)
def test_of_whole_lives_their_values_are_enough(
    kind: type[Metric], seed: int, queries: int, last: int, action: str, aggregation: str, scope: str
) -> None:
    """One process, each update a metric life of its own, but for the last life with no row, one update or two."""
    cut = None if kind is RetrievalRPrecision else 5
    metric = make(kind, cut, empty_target_action=action, aggregation=aggregation)
    *before, one, other = rows_of(seed, 6, queries, 12)
    nothing = (one[0][:0], one[1][:0], one[2][:0])
    lives = [*([rows] for rows in before), [[nothing], [one], [one, other]][last]]
    [full], _ = ranks_of([lives], metric, False, False, scope)
    [settled], left = ranks_of([lives], metric, True, True, scope, settles=True)
    assert left == 12 * last
    assert bool(settled.rows.table.settled) == (kind is not RetrievalPrecisionRecallCurve)
    counts = ("updates", "rows", "queries", "pieces", "longest_query", "longest_piece", "one_query_a_sample")
    for name in counts:
        assert getattr(full.facts, name) == getattr(settled.facts, name) or full.rows.pieces.folded, name
    assert [bool(rank.facts.restarts) for rank in (full, settled)] in ([True, True], [False, False])
    [expected], [found] = values([full], metric, scope), values([settled], metric, scope)
    same(expected, found)


def test_a_key_that_showed_other_settings_before_has_no_value_of_its_own() -> None:
    rows = rows_of(0, 2, 3, 25)
    kept, known = digest_rows(rows[0], [measure_of(RetrievalRecall(top_k=2))], True, True)
    table = build_table([tuple(zip(kept, strict=True)), tuple(zip(rows[1], strict=True))], {0: known})
    rank = Rank(_row_set(table, RetrievalRecall(top_k=5), 1, False, "auto"))
    decide([rank], RetrievalRecall(top_k=5))
    assert rank.local.outcome(NAME).value is None


def test_a_function_of_the_users_aggregates_only_where_the_value_is_asked_for() -> None:
    metric = RetrievalRecall(aggregation=lambda values, dim=0: 1 / 0)
    _, known = digest_rows(rows_of(0, 1, 3, 25)[0], [measure_of(metric)], True, True)
    assert isinstance(known, Digest)


@pytest.mark.parametrize(
    ("metric", "rows"),
    [
        (RetrievalMRR(), rows_of(0, 1, 2, 25)[0]),
        (RetrievalRPrecision(), rows_of(0, 1, 2, 25)[0]),
        (RetrievalMRR(top_k=5), rows_of(0, 1, 4, 25)[0]),
        (RetrievalNormalizedDCG(top_k=1), tuple(x * 3 if n == 2 else x for n, x in enumerate(rows_of(0, 1, 2, 25)[0]))),
        (RetrievalMRR(top_k=1), tuple(x * torch.nan if n == 1 else x for n, x in enumerate(rows_of(0, 1, 2, 25)[0]))),
    ],
    ids=["no-cut", "r-precision", "few-rows", "graded", "not-a-number"],
)
def test_where_all_rows_can_matter_all_stay(metric: Metric, rows: Update) -> None:
    assert digest_rows(rows, [measure_of(metric)], False) is None


def test_an_empty_query_that_must_raise_waits_for_whoever_asks() -> None:
    metric = RetrievalMRR(empty_target_action="error")
    empty = (torch.tensor([0, 0]), torch.tensor([0.5, 0.2]), torch.tensor([0, 0]))
    assert digest_rows(empty, [measure_of(metric)], True) is None


def test_values_of_updates_are_not_joined_over_updates() -> None:
    """Nobody can tell any more what torchmetrics would have made of ids that restart."""
    metric = RetrievalMRR()
    [rank], _ = ranks_of([[rows_of(0, 3, 2, 25)]], metric, True, True, "batch")
    decide([rank], metric, "batch")
    assert rank.local.outcome(NAME).value is not None
    assert rank.local.as_combined.outcome(NAME).value is None


# --- in a run -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("digest", [False, True])
def test_what_was_scored_before_stays_where_the_padded_query_is_all_that_a_rank_still_holds(digest: bool) -> None:
    metric = RetrievalMRR(top_k=5)
    ranks, updates = [], []
    for rank in range(2):
        shared = (torch.tensor([0.75, 0.25]), torch.tensor([0, 1]))
        first = (
            torch.tensor([2, 2, 3, 3]) + 10 * rank,
            torch.tensor([0.5, 0.25, 0.75, 1.0]),
            torch.tensor([1, 0, 1, 0]),
        )
        last = (torch.tensor([4, 4]) + 10 * rank, *shared)
        found = digest_rows(first, [measure_of(metric)], True, False) if digest else None
        kept, known = found or (first, None)
        assert kept[0].numel() == (0 if digest else 4)
        lives = [tuple([column] for column in rows) for rows in (kept, last)]
        table = build_table(lives, {0: known} if known else {})
        padded = {"ends_repeated": rank == 1, "single_life": False}
        rows = SharedRows(table, lambda rows, told=padded: gather_facts(rows.table, [2, 1], 2, **told))
        rows.metrics.append(metric)
        ranks.append(Rank(rows, synchronises=False))
        updates.append([first] if rank else [first, last])
    assert decide(ranks, metric, repeated=1).drop_padded == "query"
    for outcome in combine(ranks):
        assert outcome.value == pytest.approx(float(alone(metric, updates)), abs=1e-6)


def facts_of_all(rank: Rank) -> RowFacts:
    """What a rank tells of all its rows, whether they are here or not."""
    return replace(rank.facts, arrangement=0)


def run_steps(watch: MetricWatch, steps: int, keep: list[Metric] | None = None, **options: Any) -> list[MetricLife]:
    """A metric made, fed and shown in every step; the segments that one key shows."""
    shown: list[MetricLife] = []
    for step in range(steps):
        watch.start_batch()
        metric = RetrievalRecall(**options)
        rows = rows_of(step, 1, 4, 200)[0]
        metric.update(rows[1], rows[2], rows[0])
        origin = watch.origin_of(metric.compute()) or _origin(watch, metric)
        origin.segment.hold()
        if shown:
            shown[-1].end()
        origin.segment.begin()
        shown.append(origin.segment)
        if keep is not None:
            keep.append(metric)
        del metric, origin  # as where a step returns
    return shown


def _origin(watch: MetricWatch, metric: Metric) -> Origin:
    record = watch.record_of(metric)
    return Origin(record, "compute", False, record.segment())


def kept_rows(segments: Sequence[MetricLife]) -> list[int]:
    """The rows that each segment tells of, which are all that it keeps alive."""
    gc.collect()
    kept = [segment.states()[0] for segment in segments]
    held = [_compat.row_states(segment.metric)[0] for segment in segments]
    rows = [[sum(part.numel() for part in column) for column in columns] for columns in (kept, held)]
    gone = [segment.record.metric() is None for segment in segments]
    assert all(behind in (0, told) for told, behind, own in zip(*rows, gone, strict=True) if own), rows
    return rows[0]


@pytest.fixture
def watched() -> Any:
    listener = Listener("validation_step")
    watch = MetricWatch(listener)
    watch.install()
    yield watch, listener
    watch.uninstall()


@pytest.mark.parametrize(
    ("top_k", "final", "most"), [(5, False, 200), (None, False, 200), (None, True, 0), (5, True, 0)]
)
def test_metrics_of_a_step_leave_what_can_matter(watched: Any, top_k: int | None, final: bool, most: int) -> None:
    watch, listener = watched
    listener.final = final
    segments = run_steps(watch, 8, top_k=top_k)
    gc.collect()
    watch.start_batch()
    *before, last, latest = kept_rows(segments)
    assert latest == 200  # its last sample may turn out to be a repeated one
    assert max(before) <= most
    assert len(before) == 6
    assert last <= 200


def test_metrics_of_steps_leave_one_record_for_all(watched: Any) -> None:
    watch, listener = watched
    listener.final = listener.is_only_rank = True
    segments = run_steps(watch, 8, top_k=5)
    gc.collect()
    watch.start_batch()
    assert kept_rows(segments)[:6] == [0] * 6
    before = segments[:6]
    assert len({id(segment.metric) for segment in before}) == len({id(segment.record) for segment in before}) == 1
    assert all(measure_of(segment.metric) == measure_of(RetrievalRecall(top_k=5)) for segment in before)
    assert all(measure.metric is None for segment in before for measure in segment.known[0].values)


def set_limits(monkeypatch: pytest.MonkeyPatch, limits: dict[int, int], is_due: bool = False) -> None:
    monkeypatch.setattr(ended, "_LIMITS", limits)
    monkeypatch.setattr(gc, "get_count", lambda: (0, 5 if is_due else 4, 0))
    monkeypatch.setattr(gc, "get_threshold", lambda: (700, 10, 10))


@pytest.mark.parametrize(
    ("limit", "is_due", "enabled", "waits"),
    [
        pytest.param(1000, False, True, False, id="many rows"),
        pytest.param(10**6, False, True, True, id="few rows"),
        pytest.param(10**6, True, True, False, id="few rows, but Python would look in the next step"),
        pytest.param(1000, True, False, True, id="switched off"),
    ],
)
def test_rows_that_wait_for_the_garbage_collector_call_it(
    watched: Any, monkeypatch: pytest.MonkeyPatch, limit: int, is_due: bool, enabled: bool, waits: bool
) -> None:
    watch, listener = watched
    listener.final = listener.is_only_rank = True
    monkeypatch.setattr(gc, "isenabled", lambda: enabled)
    set_limits(monkeypatch, {1: limit, 2: limit}, is_due)
    gc.disable()
    try:
        segments = run_steps(watch, 8, top_k=5)
        watch.start_batch()
        rows = [sum(part.numel() for part in segment.states()[0]) for segment in segments]
    finally:
        gc.enable()
    assert rows == [200] * 8 if waits else rows[:5] == [0] * 5


def test_rows_of_metrics_that_the_program_keeps_are_not_looked_for_again_and_again(
    watched: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    watch, _ = watched
    calls: list[int] = []
    monkeypatch.setattr(gc, "collect", calls.append)
    set_limits(monkeypatch, {1: 1 << 14, 2: 1 << 10})
    run_steps(watch, 40, [], top_k=5)
    # 3,200 bytes a step: among young objects whenever as much has come, among all when as much as was still there
    assert calls.count(1) in (6, 7)
    assert 1 <= calls.count(2) <= 6


def test_a_metric_that_the_program_keeps_is_left_alone(watched: Any) -> None:
    watch, _ = watched
    kept: list[Metric] = []
    segments = run_steps(watch, 5, kept, top_k=5)
    gc.collect()
    watch.start_batch()
    assert kept_rows(segments) == [200] * 5
    assert all(metric.preds[0].numel() == 200 for metric in kept)


def test_a_reset_ends_a_life(watched: Any) -> None:
    watch, listener = watched
    listener.final = True
    metric = RetrievalRecall(top_k=5)
    shown: list[MetricLife] = []
    for step in range(4):
        watch.start_batch()
        metric.reset()
        rows = rows_of(step, 1, 4, 200)[0]
        metric.update(rows[1], rows[2], rows[0])
        value = metric.compute()
        segment = watch.origin_of(value).segment
        segment.hold()
        segment.begin()
        if shown:
            shown[-1].end()
        shown.append(segment)
    watch.start_batch()
    assert max(kept_rows(shown)[:3]) == 0
    assert kept_rows(shown)[3] == 200


def test_a_metric_made_in_a_step_that_lives_on_is_followed(watched: Any) -> None:
    watch, _ = watched
    metric = RetrievalRecall(top_k=5)
    shown: list[MetricLife] = []
    for step in range(3):
        watch.start_batch()
        rows = rows_of(step, 1, 4, 200)[0]
        value = metric(rows[1], rows[2], rows[0])  # makes new lists
        shown.append(watch.origin_of(value).segment)
        shown[-1].hold()
    watch.start_batch()
    assert shown[0] is shown[2]
    rows = rows_of(3, 1, 4, 200)[0]
    metric(rows[1], rows[2], rows[0])
    del metric, value
    gc.collect()
    assert kept_rows(shown[:1]) == [800]


def test_a_last_step_of_two_updates_spoils_no_value_of_the_steps_before() -> None:
    metric, rows = RetrievalMRR(), rows_of(0, 4, 3, 25)
    measures = [measure_of(metric)]
    digests, kept = {}, list(rows)
    for step in (0, 1):
        kept[step], digests[step] = digest_rows((rows[step][0], rows[step][1], rows[step][2]), measures, True)
    lives = [slice(0, 1), slice(1, 2), slice(2, 4)]
    found = []
    for held, known in ((rows, None), (kept, digests)):
        table = build_table([tuple(zip(*held[life], strict=True)) for life in lives], known)
        rank = Rank(_row_set(table, metric, 1, False, "auto"))
        decide([rank], metric)
        found.append(rank.local.outcome(NAME).value)
    assert found[1] == pytest.approx(found[0], abs=1e-6)
