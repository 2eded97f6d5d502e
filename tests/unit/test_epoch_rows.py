"""Which updates belong to a key, asked in one way for metrics that keep rows and for those that keep none."""

from __future__ import annotations

import weakref

import pytest
import torch
from torchmetrics.classification import BinaryF1Score
from torchmetrics.retrieval import RetrievalMRR

from lightning_retrieval_guard.epoch.query_ids import Batch
from lightning_retrieval_guard.run.epoch_rows import epoch_rows_of
from lightning_retrieval_guard.watch.metric_history import MetricHistory
from lightning_retrieval_guard.watch.metric_lives import MetricRecord, UpdateInfo
from lightning_retrieval_guard.watch.update_context import Feed, UpdateContext

OVER = 3
NOW = UpdateContext(Feed(7, "validate"), None, None, lambda epoch: epoch == OVER)


@pytest.mark.parametrize(
    ("feeds", "shared", "elsewhere"),
    [
        ([Feed(5, "train", None)], 1, True),
        ([Feed(5, "train", None), Feed(7, "validate", 1)], 2, False),  # of another dataloader
        ([Feed(5, "train", None), Feed(OVER, "validate", None)], 1, False),  # that is another rule's
        ([Feed(5, "train", None), Feed()], 1, False),  # an update outside of stages belongs to no dataloader
        ([Feed(7, "validate", 0)], 0, False),
    ],
)
def test_both_kinds_of_metrics_are_judged_alike(feeds: list[Feed], shared: int, elsewhere: bool) -> None:
    rows, states = RetrievalMRR(), BinaryF1Score()
    for _ in feeds:
        rows.update(torch.tensor([0.3, 0.6]), torch.tensor([0, 1]), torch.tensor([0, 0]))
        states.update(torch.tensor([0.3, 0.6]), torch.tensor([0, 1]))
    counts = dict.fromkeys(feeds, 1)
    infos = [UpdateInfo(Batch(), feed) for feed in feeds]
    life = MetricRecord(weakref.ref(rows), True, None, infos=infos, feeds=counts).life
    found = epoch_rows_of([life], NOW, 0).foreign
    assert (found.shared, found.elsewhere) == (2 * shared, elsewhere)  # of two rows each
    lives = MetricHistory()
    lives.note(MetricRecord(weakref.ref(states), False, None, feeds=counts))
    described = lives.describe("metric", 1, 0, NOW, 1)
    assert (described.shared, described.elsewhere) == (shared, elsewhere)
