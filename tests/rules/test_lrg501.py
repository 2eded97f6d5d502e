"""Values that cannot all be right."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
from torchmetrics import Metric
from torchmetrics.retrieval import (
    RetrievalHitRate,
    RetrievalMAP,
    RetrievalMRR,
    RetrievalNormalizedDCG,
    RetrievalPrecision,
    RetrievalRecall,
    RetrievalRPrecision,
)

from lightning_retrieval_guard.epoch.views import EpochView, KeyView
from lightning_retrieval_guard.findings import Finding, Severity
from tests.unit.simulated import Update, update

from .factories import LINE, PATH, at_end, facts, findings_of, sources, stage, steps

HIT, MISS = update([0, 0], [0.9, 0.1], [1, 0]), update([1, 1], [0.8, 0.7], [0, 1])
TWO = update([2, 2, 2], [0.6, 0.5, 0.4], [0, 1, 1])
TIED = update([2, 2], [0.5, 0.5], [0, 1])
LOW = update([2, 2], [-0.5, -0.6], [1, 0])
HALF = update([2, 2], [0.5, 0.4], [0.5, 0])
AGAIN = update([0, 0], [0.3, 0.2], [1, 0])

Shown = tuple[Metric, float]


def judged(
    *shown: Shown, ranks: Sequence[Sequence[Update]] = ((HIT, MISS),), changed: Any = None, **more: Any
) -> EpochView:
    """Metrics that saw the same rows, with what Lightning computed for them; keys are named a, b and so on."""
    names = "abcdef"[: len(shown)]
    views = sources(ranks, {name: metric for name, (metric, _) in zip(names, shown, strict=True)}, **more)
    key_facts = {name: facts(name, kind="metric", source=name, **(changed or {}).get(name, {})) for name in names}
    keys = [
        KeyView((key_facts[name],) * len(ranks), views[name], computed=number)
        for name, (_, number) in zip(names, shown, strict=True)
    ]
    return stage(*keys)


def the_break(seen: EpochView) -> Finding:
    [finding] = findings_of("LRG501", seen)
    assert (finding.code, finding.rule, finding.severity) == ("LRG501", "implausible-value", Severity.WARNING)
    assert (finding.path, finding.line, finding.effect, finding.corrected) == (PATH, LINE, None, False)
    return finding


# --- a value by itself ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [-0.1, 1.1, 42.19, math.inf, -math.inf])
def test_a_value_outside_of_zero_and_one(number: float) -> None:
    finding = the_break(judged((RetrievalMAP(), number)))
    assert finding.key == "a"
    assert finding.message.startswith("'a' is ")
    assert finding.message.endswith(", and RetrievalMAP lies between 0 and 1.")


def test_the_text() -> None:
    assert the_break(judged((RetrievalMRR(), 1.25))).text() == (
        "LRG501 implausible-value: 'a' is 1.2500, and RetrievalMRR lies between 0 and 1."
        " Log the metric object, or what compute() returns as it is, with batch sizes above zero."
    )


@pytest.mark.parametrize("metric", [RetrievalMRR(), RetrievalNormalizedDCG()])
def test_no_number(metric: Metric) -> None:
    finding = the_break(judged((metric, math.nan)))
    assert finding.message == f"'a' is nan, and {type(metric).__name__} is always a number."


@pytest.mark.parametrize("number", [0.0, 1.0, -9e-6, 1 + 9e-6])
def test_the_ends_are_values(number: float) -> None:
    assert not findings_of("LRG501", judged((RetrievalMRR(), number)))


def test_graded_relevance_makes_anything_of_ndcg() -> None:
    assert not findings_of("LRG501", judged((RetrievalNormalizedDCG(), 1.5)))


class Own(RetrievalMRR):
    """Its formula is its own."""

    def _metric(self, preds: Any, target: Any) -> Any:
        return super()._metric(preds, target) * 100


def test_what_has_no_bounds_is_silent() -> None:
    assert not findings_of("LRG501", judged((Own(), 42.0)))
    assert not findings_of("LRG501", judged((RetrievalMRR(aggregation="max"), 42.0)))
    assert not findings_of("LRG501", stage(KeyView((at_end(42.0),))))


def test_a_weighted_mean_of_nothing() -> None:
    key_facts = steps((0.5, 4, 0), (0.5, 4, 0), kind="forward", source="a", name="a")
    view = sources([[HIT, MISS]], {"a": RetrievalMRR()})["a"]
    assert the_break(stage(KeyView((key_facts,), view))).message.startswith("'a' is nan, ")


def test_a_sum_over_steps_may_be_anything() -> None:
    key_facts = steps((0.9, 4, 4), (0.9, 4, 4), kind="forward", source="a", reduction="sum")
    view = sources([[HIT, MISS]], {"a": RetrievalMRR()})["a"]
    assert not findings_of("LRG501", stage(KeyView((replace(key_facts, value=1.8, weight=None),), view)))


def test_a_corrected_number_is_what_counts() -> None:
    seen = judged((RetrievalMRR(), 1.5))
    seen = replace(seen, corrected=frozenset({seen.keys[0].first.storage}))
    assert seen.keys[0].reference == 0.75
    assert not findings_of("LRG501", seen)


# --- values that must grow --------------------------------------------------------------------------------------


def test_recall_does_not_fall() -> None:
    finding = the_break(judged((RetrievalRecall(top_k=5), 0.25), (RetrievalRecall(top_k=1), 0.75)))
    assert finding.key == "a"
    assert finding.message == (
        "'a' is 0.2500 and 'b' is 0.7500; both show the same rows, and recall does not fall as top_k grows from 1 to 5."
    )


def test_all_rows_are_the_largest_cut_off() -> None:
    finding = the_break(judged((RetrievalHitRate(top_k=3), 0.75), (RetrievalHitRate(), 0.25), ranks=((HIT, TWO),)))
    assert (finding.key, "hit rate does not fall as top_k grows from 3 to all rows." in finding.message) == ("b", True)


def test_ranks_see_it_together() -> None:
    finding = the_break(
        judged((RetrievalRecall(top_k=1), 0.75), (RetrievalRecall(top_k=2), 0.5), ranks=((HIT,), (MISS,)))
    )
    assert finding.ranks == (0, 1)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ((RetrievalRecall(top_k=1), 0.5), (RetrievalRecall(top_k=2), 1.0)),
        ((RetrievalRecall(top_k=1), 0.5), (RetrievalRecall(top_k=2), 0.5 - 9e-6)),
        ((RetrievalRecall(top_k=2), 0.5), (RetrievalRecall(top_k=2), 0.25)),
        ((RetrievalRecall(top_k=1), 0.5), (RetrievalHitRate(top_k=2), 0.25)),
        ((RetrievalPrecision(top_k=1), 0.5), (RetrievalPrecision(top_k=2), 0.25)),
        ((RetrievalRPrecision(), 0.5), (RetrievalMAP(), 0.25)),
        (
            (RetrievalRecall(top_k=1, empty_target_action="skip"), 0.5),
            (RetrievalRecall(top_k=2, empty_target_action="neg"), 0.25),
        ),
        ((RetrievalRecall(top_k=1), 0.5), (RetrievalRecall(top_k=2, aggregation="min"), 0.25)),
    ],
    ids=["grows", "rounding", "same-k", "other-formula", "precision", "no-k", "other-empty", "other-aggregation"],
)
def test_what_may_differ(one: Shown, other: Shown) -> None:
    assert not findings_of("LRG501", judged(one, other))


FALLING = ((RetrievalRecall(top_k=1), 0.75), (RetrievalRecall(top_k=2), 0.5))


def test_other_rows_are_not_compared() -> None:
    one, same, other = judged(*FALLING), judged(*FALLING), judged(*FALLING, ranks=((HIT,),))
    assert findings_of("LRG501", stage(one.keys[0], same.keys[1]))
    assert not findings_of("LRG501", stage(one.keys[0], other.keys[1]))


@pytest.mark.parametrize(
    "changed", [{"in_step": False}, {"calls": 2}, {"sync_dist": True}, {"rank_zero_only": True}, {"weight": 3.0}]
)
def test_numbers_that_came_about_in_another_way_are_not_compared(changed: dict[str, Any]) -> None:
    assert not findings_of("LRG501", judged(*FALLING, changed={"b": changed}))
    assert findings_of("LRG501", judged(*FALLING, changed={"a": changed, "b": changed}))


def test_a_metric_that_never_combines_ranks_is_not_compared_with_one_that_does() -> None:
    ranks = ((HIT, MISS), (HIT, MISS))
    one, other = judged(*FALLING, ranks=ranks), judged(*FALLING, ranks=ranks, synchronises=False)
    assert other.keys[1].source.plan == one.keys[0].source.plan
    assert not findings_of("LRG501", stage(one.keys[0], replace(other.keys[1], computed=0.5)))
    assert findings_of("LRG501", stage(one.keys[0], replace(one.keys[1], computed=0.5)))


# --- values that must be equal ----------------------------------------------------------------------------------

AT_ONE = (RetrievalMRR, RetrievalRecall, RetrievalHitRate, RetrievalPrecision)


@pytest.mark.parametrize("one", AT_ONE)
@pytest.mark.parametrize("other", AT_ONE)
def test_one_relevant_row_a_query_makes_them_equal(one: type[Metric], other: type[Metric]) -> None:
    seen = judged((one(top_k=1), 0.5), (other(top_k=1), 0.25))
    if one is other:
        assert not findings_of("LRG501", seen)
        return
    finding = the_break(seen)
    assert finding.key == "b"
    assert finding.message == (
        "'b' is 0.2500 and 'a' is 0.5000; both tell whether the best row is relevant, which is one number where each"
        " query has exactly one relevant row."
    )
    assert not findings_of("LRG501", judged((one(top_k=1), 0.5), (other(top_k=1), 0.5 + 9e-6)))


PAIR = ((RetrievalMRR(top_k=1), 0.5), (RetrievalRecall(top_k=1), 0.25))


@pytest.mark.parametrize(
    "ranks",
    [((HIT, TWO),), ((HIT, TIED),), ((HIT, LOW),), ((HIT, HALF),), ((HIT,), (TWO,)), ((HIT, MISS), (AGAIN,))],
    ids=["two-relevant", "tied", "low-score", "graded", "on-the-other-rank", "split"],
)
def test_without_one_clear_answer_they_may_differ(ranks: Sequence[Sequence[Update]]) -> None:
    assert not findings_of("LRG501", judged(*PAIR, ranks=ranks))


def test_a_rank_without_rows_has_no_say() -> None:
    assert the_break(judged(*PAIR, ranks=((HIT, MISS), ()))).key == "b"


def test_other_cut_offs_may_differ() -> None:
    assert not findings_of("LRG501", judged(PAIR[0], (RetrievalRecall(top_k=2), 0.7)))
    assert not findings_of("LRG501", judged((RetrievalMRR(), 0.5), PAIR[1]))


def test_declared_scopes_are_left_out() -> None:
    assert not findings_of("LRG501", judged(*PAIR, scope="batch"))


# --- what others explain ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("key", ["a", "b"])
def test_what_another_rule_explains_is_silent(key: str) -> None:
    for shown in (FALLING, PAIR):
        assert not findings_of("LRG501", replace(judged(*shown), explained=frozenset({key})))
        assert findings_of("LRG501", replace(judged(*shown), explained=frozenset({"c"})))


def test_a_finding_at_the_metric_explains_too() -> None:
    seen = judged((RetrievalMRR(), 1.5))
    renamed = KeyView((replace(seen.keys[0].first, name="val_mrr"),), seen.keys[0].source, computed=1.5)
    assert findings_of("LRG501", stage(renamed))
    assert not findings_of("LRG501", replace(stage(renamed), explained=frozenset({"a"})))
