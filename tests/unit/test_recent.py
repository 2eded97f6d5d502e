"""Metrics that saw the same rows share one ranking, and none shares that of rows that were written to since."""

from __future__ import annotations

from collections.abc import Callable
from unittest import mock

import pytest
import torch
from torch import Tensor
from torchmetrics import Metric
from torchmetrics.retrieval import (
    RetrievalAUROC,
    RetrievalMAP,
    RetrievalMRR,
    RetrievalNormalizedDCG,
    RetrievalPrecision,
    RetrievalRecall,
)

from lightning_retrieval_guard.epoch.combine import score_alone
from lightning_retrieval_guard.ranking import recent
from lightning_retrieval_guard.ranking.recent import RecentRanking


def metrics() -> list[Metric]:
    cut = [kind(top_k=k) for k in (1, 5) for kind in (RetrievalRecall, RetrievalPrecision, RetrievalNormalizedDCG)]
    return [RetrievalMRR(), *cut, RetrievalMAP(), RetrievalAUROC(), RetrievalRecall(top_k=3)]


def columns(seed: int, tied: bool) -> tuple[Tensor, Tensor, Tensor]:
    random = torch.Generator().manual_seed(seed)
    preds = torch.rand(20, 30, generator=random)
    target = (torch.rand(20, 30, generator=random) < 0.1).long()
    target[:, 0] = 1
    return (4 * preds).round() / 4 if tied else preds, target, torch.arange(20)[:, None].expand(20, 30).clone()


def rankings() -> mock._patch[mock.MagicMock]:
    return mock.patch.object(recent, "rank_rows", wraps=recent.rank_rows)


@pytest.mark.parametrize("tied", [False, True])
def test_metrics_with_the_same_rows_share_a_ranking(tied: bool) -> None:
    known = RecentRanking()
    with rankings() as ranked:
        for seed in (0, 1):
            for metric in metrics():
                metric.update(*columns(seed, tied))
                assert score_alone(metric, known).value == pytest.approx(float(metric.compute()), abs=1e-6)
    # for each set of rows one of relevant rows, and one of all rows for the curve
    assert ranked.call_count == 4


@pytest.mark.parametrize(
    "change",
    [
        lambda preds, target, ids: preds.mul_(-1),
        lambda preds, target, ids: target[:, 1].fill_(1),
        lambda preds, target, ids: ids[10:].fill_(3),
    ],
    ids=["scores", "relevance", "ids"],
)
@pytest.mark.parametrize("inference", [False, True])
def test_rows_that_were_written_to_are_ranked_again(change: Callable[..., Tensor], inference: bool) -> None:
    known = RecentRanking()
    with torch.inference_mode(inference):
        rows = columns(0, False)
        values = []
        for number in range(2):
            if number:
                change(*rows)
            metric = RetrievalMRR()
            metric.update(*rows)
            values.append(score_alone(metric, known).value)
            assert values[-1] == pytest.approx(float(metric.compute()), abs=1e-6)
    assert values[0] != values[1]


def test_many_rows_are_neither_copied_nor_remembered() -> None:
    preds, target, ids = (part.repeat(100, 1) for part in columns(0, False))
    metric = RetrievalMRR()
    metric.update(preds, target, ids)
    known = RecentRanking()
    with rankings() as ranked:
        assert [score_alone(metric, known).value for _ in range(2)] == [pytest.approx(float(metric.compute()))] * 2
    assert ranked.call_count == 2
