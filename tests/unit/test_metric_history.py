"""What is told of a metric that keeps no rows."""

from __future__ import annotations

import gc
import weakref
from typing import Any

import pytest
import torch
from torchmetrics import CohenKappa, MaxMetric, MeanMetric, MinMaxMetric, MinMetric, SumMetric
from torchmetrics.aggregation import RunningSum
from torchmetrics.classification import (
    BinaryAccuracy,
    BinaryAUROC,
    BinaryF1Score,
    BinaryHammingDistance,
    MulticlassAccuracy,
    MulticlassF1Score,
    MulticlassHammingDistance,
    MulticlassPrecision,
    MulticlassRecall,
    MultilabelAccuracy,
    MultilabelF1Score,
    MultilabelHammingDistance,
    MultilabelPrecision,
)
from torchmetrics.clustering import AdjustedRandScore, NormalizedMutualInfoScore
from torchmetrics.nominal import CramersV
from torchmetrics.regression import (
    CosineSimilarity,
    MeanAbsoluteError,
    MeanSquaredError,
    MinkowskiDistance,
    PearsonCorrCoef,
)
from torchmetrics.text import WordErrorRate

from lightning_retrieval_guard.epoch.facts import SourceMetricFacts
from lightning_retrieval_guard.watch.metric_history import MetricHistory, compute_value, is_mean_of_batches
from lightning_retrieval_guard.watch.metric_lives import Dropped, MetricRecord
from lightning_retrieval_guard.watch.update_context import Feed, UpdateContext

OVER = 3
NOW = UpdateContext(Feed(7, "validate"), None, None, lambda epoch: epoch == OVER)
HERE = Feed(7, "validate", 0)


class Own(BinaryAccuracy):
    """A metric of the user's, of which nobody knows what it is."""


@pytest.mark.parametrize(
    ("metric", "is_mean"),
    [
        (BinaryAccuracy(), True),
        (BinaryF1Score(), False),
        (BinaryAUROC(), False),
        (MulticlassAccuracy(3), False),
        (MulticlassAccuracy(3, average="micro"), True),
        (MulticlassF1Score(3, average="micro"), True),
        (MulticlassPrecision(3), False),
        (MultilabelF1Score(3, average="micro"), False),
        (CohenKappa(task="binary"), False),
        (MeanSquaredError(), True),
        (MeanSquaredError(squared=False), False),
        (MeanAbsoluteError(), True),
        (PearsonCorrCoef(), False),
        (WordErrorRate(), False),
        (MeanMetric(), True),
        (MaxMetric(), False),
        (MinMetric(), False),
        (SumMetric(), False),
        (RunningSum(), False),
        (MinkowskiDistance(p=2), False),
        (CosineSimilarity(reduction="sum"), False),
        (CosineSimilarity(reduction="mean"), True),
        (CramersV(3), False),
        (NormalizedMutualInfoScore(), False),
        (AdjustedRandScore(), False),
        (BinaryHammingDistance(), True),
        (MultilabelAccuracy(3, average="macro"), True),
        (MultilabelAccuracy(3, average="micro"), True),
        (MultilabelAccuracy(3, average="weighted"), False),
        (MultilabelHammingDistance(3), True),
        (MultilabelPrecision(3), False),
        (MulticlassAccuracy(3, average="weighted"), True),
        (MulticlassRecall(3, average="weighted"), True),
        (MulticlassRecall(3), False),
        (MulticlassHammingDistance(3), False),
        (MulticlassHammingDistance(3, average="micro"), True),
        (Own(), True),
    ],
)
def test_which_metrics_are_means(metric: Any, is_mean: bool) -> None:
    assert is_mean_of_batches(metric) is is_mean


def record_of(metric: Any, feeds: dict[Feed, int], **fields: Any) -> MetricRecord:
    metric._update_count = sum(feeds.values())
    return MetricRecord(weakref.ref(metric), False, None, feeds=feeds, **fields)


def described(
    metric: Any,
    feeds: dict[Feed, int],
    kind: str = "compute",
    calls: int = 3,
    dataloader: int | None = None,
    world_size: int = 1,
    **fields: Any,
) -> SourceMetricFacts:
    lives = MetricHistory()
    lives.note(record_of(metric, feeds, **fields))
    return lives.describe(kind, calls, dataloader, NOW, world_size)


def test_a_growing_metric_that_holds_just_this_epoch() -> None:
    metric = BinaryF1Score()
    assert described(metric, {HERE: 3}) == SourceMetricFacts("BinaryF1Score", mean=False, running=True, whole=True)
    assert described(metric, {HERE: 3}, kind="forward") == SourceMetricFacts("BinaryF1Score", mean=False, whole=True)
    assert not described(metric, {HERE: 1}, calls=1).running


@pytest.mark.parametrize(
    ("feeds", "options"),
    [
        ({HERE: 6}, {}),  # it was also updated where nothing was logged
        ({HERE: 2, Feed(5, "train", None): 1}, {}),
        ({HERE: 2, HERE._replace(dataloader=1): 1}, {}),
        ({HERE: 3}, {"dataloader": 1}),
        ({Feed(): 3}, {}),
    ],
)
def test_a_metric_that_was_fed_otherwise_cannot_be_asked(feeds: dict[Feed, int], options: dict[str, Any]) -> None:
    metric = BinaryF1Score()
    assert not described(metric, feeds, **options).whole


def test_a_metric_that_does_not_combine_ranks_cannot_be_asked_by_several() -> None:
    metric = BinaryF1Score(sync_on_compute=False)
    assert described(metric, {HERE: 3}).whole
    assert not described(metric, {HERE: 3}, world_size=2).whole


def test_of_a_mean_that_is_right_nothing_is_told() -> None:
    metric = BinaryAccuracy()
    for kind, calls in (("forward", 3), ("metric", 3), ("compute", 1)):
        assert described(metric, {HERE: 3}, kind=kind, calls=calls) == SourceMetricFacts()


def test_a_metric_that_another_run_has_fed_too_does_not_hold_the_epoch_alone() -> None:
    metric, lives = BinaryF1Score(), MetricHistory()
    lives.note(record_of(metric, {HERE: 3}))
    assert lives.describe("forward", 3, None, NOW, 1).whole
    metric._update_count = 5  # two updates before this run
    assert not lives.describe("forward", 3, None, NOW, 1).whole


def test_a_reset_begins_another_life() -> None:
    metric, lives = BinaryF1Score(), MetricHistory()
    record = record_of(metric, {HERE: 1})
    lives.note(record)
    record.start_over()
    lives.note(record)
    described_facts = lives.describe("compute", 2, None, NOW, 1)
    assert (lives.count, described_facts.running, described_facts.whole) == (2, False, False)


def test_stale_and_shared_updates() -> None:
    metric = BinaryF1Score()
    old, sanity, train = Feed(OVER, "validate", 0), Feed(OVER, "sanity_check", 0), Feed(6, "train", None)
    described_facts = described(metric, {old: 4, sanity: 2, train: 5, HERE: 1})
    assert (described_facts.stale, described_facts.sanity, described_facts.shared, described_facts.dropped) == (
        6,
        False,
        5,
        False,
    )
    assert described(metric, {sanity: 2}).sanity
    assert described(metric, {HERE: 1, HERE._replace(dataloader=1): 2}, dataloader=0).shared == 2
    assert described(metric, {old: 4, train: 5}, kind="forward") == SourceMetricFacts("BinaryF1Score", mean=False)
    described_facts = described(metric, {HERE: 1}, dropped=Dropped(7, 9, True))
    assert (described_facts.stale, described_facts.sanity, described_facts.dropped) == (9, True, True)
    assert described(metric, {HERE: 1}, dropped=Dropped(6, 9, True)).stale == 0


@pytest.mark.parametrize("metric", [MaxMetric(), MeanMetric()])
def test_aggregators_may_hold_on(metric: Any) -> None:
    assert described(metric, {Feed(OVER, "validate", 0): 4}).stale == 0


def test_wrappers_and_metrics_that_are_gone_tell_nothing() -> None:
    wrapper = MinMaxMetric(BinaryAccuracy())
    assert described(wrapper, {HERE: 3}) == SourceMetricFacts()
    metric, lives = BinaryF1Score(), MetricHistory()
    lives.note(record_of(metric, {HERE: 3}))
    del metric
    gc.collect()
    assert lives.describe("compute", 3, None, NOW, 1) == SourceMetricFacts()
    assert MetricHistory().describe("compute", 3, None, NOW, 1) == SourceMetricFacts()


def test_asking_leaves_the_metric_and_chance_as_they_were() -> None:
    metric = BinaryF1Score()
    metric.update(torch.tensor([0.9, 0.2]), torch.tensor([1, 1]))
    before = torch.random.get_rng_state()
    assert compute_value(metric, alone=True) == pytest.approx(2 / 3)
    assert metric._computed is None
    assert torch.equal(torch.random.get_rng_state(), before)
    assert compute_value(MulticlassPrecision(3, average=None), alone=True) is None
