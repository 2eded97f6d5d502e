"""Values of batches are averaged."""

from dataclasses import replace

import pytest
from torchmetrics.retrieval import RetrievalMRR

from lightning_retrieval_guard.epoch.views import KeyView
from lightning_retrieval_guard.findings import Severity
from tests.unit.simulated import Update, update

from .factories import facts, findings_of, source, stage, steps, the_finding

# Queries 1 and 2 have rows in two updates, the relevant one in one of them; all updates hold many more ids than one.
FIRST = update([1, 1, 2, 3, 3], [0.9, 0.8, 0.7, 0.6, 0.5], [0, 0, 1, 1, 0])
SECOND = update([1, 2, 2, 4, 5], [0.4, 0.3, 0.2, 0.9, 0.8], [1, 0, 0, 1, 1])
THIRD = update([6, 6, 7, 7], [0.9, 0.8, 0.7, 0.6], [1, 0, 1, 0])


def of_batches(updates: list[Update], *values: float, **changed: object) -> KeyView:
    """A key that shows ``forward()`` of one rank, with the samples of each update."""
    logged = [
        (value, len(rank_updates[0]), len(rank_updates[0])) for value, rank_updates in zip(values, updates, strict=True)
    ]
    metric = changed.pop("metric", RetrievalMRR())
    scope = changed.pop("scope", "auto")
    key = steps(*logged, name="val_mrr", kind="forward", source="recall", **changed)
    return KeyView((key,), source([updates], metric, scope=scope))


def test_queries_that_go_on_in_the_next_batch() -> None:
    finding = the_finding("LRG302", stage(of_batches([FIRST, SECOND, THIRD], 0.5, 1.0, 1.0)))
    assert finding.severity is Severity.ERROR
    assert finding.effect.logged == pytest.approx((5 * 0.5 + 5 + 4) / 14)
    # the relevant row of query 1 is the third of three, that of every other query the first
    assert finding.effect.reference == pytest.approx((1 / 3 + 6) / 7)
    assert finding.text() == (
        "LRG302 mean-of-batches: 'val_mrr' is the mean of 3 values on single batches, and queries have rows in several"
        " batches. Logged 0.8214, reference 0.9048. Update the metric in the step, and log the metric object."
    )


def test_ids_that_may_restart_are_left_alone() -> None:
    # every update holds all the ids there are: they may count from zero in each, or be a corpus in parts
    same = [update([0, 0, 1], [0.9, 0.8, 0.7], [1, 0, 0]), update([0, 1, 1], [0.6, 0.5, 0.4], [0, 1, 0])]
    assert not findings_of("LRG302", stage(of_batches(same, 0.5, 0.5)))
    assert findings_of("LRG302", stage(of_batches(same, 0.5, 0.5, scope="global")))


def test_whole_queries_with_a_hit_in_each_batch_are_left_alone() -> None:
    # pools of their own: each part of a query has its relevant row
    pools = [
        update([1, 1, 2, 2], [0.9, 0.8, 0.7, 0.6], [0, 1, 1, 0]),
        update([1, 1, 3, 3], [0.5, 0.4, 0.3, 0.2], [1, 0, 1, 0]),
    ]
    assert not findings_of("LRG302", stage(of_batches(pools, 0.75, 1.0)))


def test_pools_stay_pools_where_another_query_is_in_parts() -> None:
    pools = [
        update([1, 1, 2, 2, 9], [0.9, 0.8, 0.7, 0.6, 0.1], [0, 1, 1, 0, 0]),  # nothing is relevant to query 9
        update([1, 1, 3, 3], [0.5, 0.4, 0.3, 0.2], [1, 0, 1, 0]),
        update([4, 4, 5, 5, 6, 6, 7, 7], [0.9, 0.1] * 4, [1, 0] * 4),
        update([10, 10, 11, 11, 12, 12, 13, 13], [0.9, 0.1] * 4, [1, 0] * 4),
    ]
    assert not findings_of("LRG302", stage(of_batches(pools, 0.75, 1.0, 1.0, 1.0)))


@pytest.mark.parametrize(
    ("kind", "whole", "is_found"), [("compute", False, True), ("compute", True, False), ("forward", True, True)]
)
def test_parts_in_one_batch_matter_to_forward_alone(kind: str, whole: bool, is_found: bool) -> None:
    """compute() of a metric that is reset in each step has seen all of its updates there."""
    key = of_batches([FIRST, SECOND, THIRD], 0.5, 1.0, 1.0)
    plan = key.source.plan
    facts = replace(plan.facts[0], single_life=False, whole_in_batches=whole)
    seen = replace(key.source, plan=replace(plan, facts=(facts,)), synchronises=False)
    key = KeyView(tuple(replace(part, kind=kind) for part in key.facts), seen)
    assert bool(findings_of("LRG302", stage(key))) is is_found


def test_a_median_is_no_mean() -> None:
    updates = [update([0, 0], [0.9, 0.1], [1, 0]), update([1, 1, 2, 2], [0.9, 0.1, 0.8, 0.2], [0, 1, 0, 1])]
    key = of_batches(updates, 1.0, 0.5, metric=RetrievalMRR(aggregation="median"))
    finding = the_finding("LRG302", stage(key))
    assert finding.effect.reference == pytest.approx(0.5)
    assert "RetrievalMRR takes no mean over queries" in finding.message


def test_batches_that_do_not_count_by_queries() -> None:
    updates = [
        update([0, 0, 0, 0], [0.9, 0.1, 0.2, 0.3], [1, 0, 0, 0]),
        update([1, 1, 2, 2], [0.9, 0.1, 0.8, 0.2], [0, 1, 0, 1]),
    ]
    finding = the_finding("LRG302", stage(of_batches(updates, 1.0, 0.5)))
    assert (finding.effect.logged, finding.effect.reference) == pytest.approx((0.75, 2 / 3))
    assert "batches do not count by their numbers of queries" in finding.message


def test_another_metric_that_is_no_mean() -> None:
    key = KeyView((steps((0.5, 4, 4), (0.7, 4, 4), kind="forward", metric="BinaryF1Score", mean=False),))
    finding = the_finding("LRG302", stage(key))
    assert (finding.severity, finding.effect) == (Severity.ERROR, None)
    assert "and BinaryF1Score over all samples is no mean of those." in finding.message
    key = KeyView(key.facts, recomputed=0.65)
    assert the_finding("LRG302", stage(key)).effect.reference == 0.65


def test_a_value_that_each_rank_logs_once_is_no_mean_where_the_metric_combined_the_ranks() -> None:
    # such as compute() with the last batch
    once = steps((0.5, 4, 4), kind="compute", metric="BinaryF1Score", mean=False, world_size=2)
    combined = replace(once, synced=True)
    assert not findings_of("LRG302", stage(KeyView((combined, combined), batches=(3, 3))))
    assert findings_of("LRG302", stage(KeyView((once, replace(once, value=2.4)), batches=(3, 3))))
    twice = replace(combined, calls=2)
    assert findings_of("LRG302", stage(KeyView((twice, twice), batches=(3, 3))))


@pytest.mark.parametrize(
    "key",
    [
        KeyView((steps((0.5, 4, 4), (0.7, 4, 4), kind="forward", metric="BinaryAccuracy"),)),
        KeyView((steps((0.5, 4, 4), kind="forward", metric="BinaryF1Score", mean=False),)),
        KeyView((facts(kind="metric", metric="BinaryF1Score", mean=False, calls=9),)),
        KeyView(
            (steps((0.5, 4, 4), (0.7, 4, 4), metric="BinaryF1Score", mean=False, kind="forward", reduction="max"),)
        ),
        of_batches([update([0, 0], [0.9, 0.1], [1, 0]), update([1, 1], [0.1, 0.9], [1, 0])], 1.0, 0.5),
    ],
)
def test_right_programs_are_silent(key: KeyView) -> None:
    assert not findings_of("LRG302", stage(key))
