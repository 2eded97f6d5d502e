"""Which updates belong to a key, asked in one way for metrics that keep rows and for those that keep none."""

from __future__ import annotations

import weakref

import pytest
import torch
from torchmetrics import Metric
from torchmetrics.classification import BinaryF1Score
from torchmetrics.retrieval import RetrievalMRR

from lightning_retrieval_guard.epoch.query_ids import Batch
from lightning_retrieval_guard.run.epoch_rows import epoch_rows_of
from lightning_retrieval_guard.watch.metric_history import MetricHistory
from lightning_retrieval_guard.watch.metric_lives import MetricRecord, UpdateInfo
from lightning_retrieval_guard.watch.update_context import Feed, UpdateContext

OVER = 3
NOW = UpdateContext(Feed(7, "validate"), None, None, lambda epoch: epoch == OVER)


def is_of_another(feed: Feed, dataloader: int | None) -> tuple[bool, bool]:
    """What both kinds of metrics say of one update."""
    return shared_rows(feed, dataloader) > 0, shared_updates(feed, dataloader) > 0


def shared_rows(feed: Feed, dataloader: int | None) -> int:
    metric = RetrievalMRR()
    metric.update(torch.tensor([0.3, 0.6]), torch.tensor([0, 1]), torch.tensor([0, 0]))
    life = record_of(metric, feed, is_rows=True).life
    rows = epoch_rows_of([life], NOW, dataloader)
    assert len(rows.lives[0].states()[0]) == (not rows.foreign.shared and not rows.foreign.stale)
    return rows.foreign.shared


def shared_updates(feed: Feed, dataloader: int | None) -> int:
    metric, lives = BinaryF1Score(), MetricHistory()
    metric.update(torch.tensor([0.3, 0.6]), torch.tensor([0, 1]))
    lives.note(record_of(metric, feed, is_rows=False))
    return lives.describe("metric", 1, dataloader, NOW, 1).shared


@pytest.mark.parametrize(
    ("feeds", "elsewhere"),
    [
        ([Feed(5, "train", None)], True),
        ([Feed(5, "train", None), Feed(7, "validate", 1)], False),  # of another dataloader
        ([Feed(5, "train", None), Feed(OVER, "validate", None)], False),
        ([Feed(5, "train", None), Feed()], False),
        ([Feed(7, "validate", 0)], False),
    ],
)
def test_nothing_is_shared_with_a_stage_that_fed_nothing(feeds: list[Feed], elsewhere: bool) -> None:
    rows, states = RetrievalMRR(), BinaryF1Score()
    for _ in feeds:
        rows.update(torch.tensor([0.3, 0.6]), torch.tensor([0, 1]), torch.tensor([0, 0]))
        states.update(torch.tensor([0.3, 0.6]), torch.tensor([0, 1]))
    counts = dict.fromkeys(feeds, 1)
    infos = [UpdateInfo(Batch(), feed) for feed in feeds]
    life = MetricRecord(weakref.ref(rows), True, None, infos=infos, feeds=counts).life
    assert epoch_rows_of([life], NOW, 0).foreign.elsewhere is elsewhere
    lives = MetricHistory()
    lives.note(MetricRecord(weakref.ref(states), False, None, feeds=counts))
    assert lives.describe("metric", 1, 0, NOW, 1).elsewhere is elsewhere


def record_of(metric: Metric, feed: Feed, is_rows: bool) -> MetricRecord:
    return MetricRecord(weakref.ref(metric), is_rows, None, infos=[UpdateInfo(Batch(), feed)], feeds={feed: 1})


@pytest.mark.parametrize(
    ("feed", "dataloader", "expected"),
    [
        (Feed(7, "validate", None), None, False),
        (Feed(7, "validate", 0), None, False),
        (Feed(7, "validate", 0), 0, False),
        (Feed(7, "validate", 1), 0, True),
        (Feed(5, "train", None), None, True),
        (Feed(5, "train", None), 0, True),
        (Feed(OVER, "validate", 1), 0, False),  # that is another rule's
        (Feed(), None, False),
        (Feed(), 0, False),  # an update outside of stages belongs to no dataloader
    ],
)
def test_both_kinds_of_metrics_are_judged_alike(feed: Feed, dataloader: int | None, expected: bool) -> None:
    assert is_of_another(feed, dataloader) == (expected, expected)
