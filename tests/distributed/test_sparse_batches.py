"""Metrics that a step makes and that skip queries without a relevant row: batches do not count by their samples."""

from __future__ import annotations

from collections.abc import Mapping

import pytest
import torch
from lightning.pytorch import LightningModule
from torch import Tensor
from torch.utils.data import DataLoader
from torchmetrics.retrieval import RetrievalMRR

from .harness import Pool
from .ranks import on_ranks

pytestmark = pytest.mark.timeout(120)

SAMPLES, CANDIDATES, BATCH = 22, 5, 4
_random = torch.Generator().manual_seed(5)
SCORES = torch.rand(SAMPLES, CANDIDATES, generator=_random)
TARGET = (torch.rand(SAMPLES, CANDIDATES, generator=_random) < 0.15).long()


def mean_over_queries() -> float:
    """In numpy, of the queries that have a relevant row."""
    scores, relevant = SCORES.numpy(), TARGET.numpy() > 0
    ranks = [(row >= row[hits].max()).sum() for row, hits in zip(scores, relevant, strict=True) if hits.any()]
    return float(sum(1 / rank for rank in ranks) / len(ranks))


class OfTheData(LightningModule):
    """Ids of the data, whole queries in each batch."""

    synchronises = False

    def val_dataloader(self) -> DataLoader[int]:
        return DataLoader(range(SAMPLES), batch_size=BATCH)

    def ids(self, batch: Tensor) -> Tensor:
        return 100 + 3 * batch

    def validation_step(self, batch: Tensor, batch_idx: int) -> None:
        metric = RetrievalMRR(empty_target_action="skip", sync_on_compute=self.synchronises)
        metric.update(SCORES[batch], TARGET[batch], indexes=self.ids(batch)[:, None].expand(-1, CANDIDATES))
        self.log("mrr", metric.compute(), batch_size=len(batch), sync_dist=not self.synchronises)


class Synchronised(OfTheData):
    synchronises = True


class Counted(OfTheData):
    """Ids of the batch: each metric has its own, so that they are no fault."""

    def ids(self, batch: Tensor) -> Tensor:
        return torch.arange(len(batch))


class Parts(OfTheData):
    """The candidates of a query come in two batches: no mean over batches is one over queries."""

    def ids(self, batch: Tensor) -> Tensor:
        return batch % (SAMPLES // 2)


@pytest.mark.parametrize("world_size", [1, 2])
@pytest.mark.parametrize("program", [OfTheData, Synchronised, Counted])
def test_correct_mode_logs_the_mean_over_queries(
    pools: Mapping[int, Pool], program: type[OfTheData], world_size: int
) -> None:
    plain = on_ranks(pools[world_size], program)
    for before, shown in zip(plain, on_ranks(pools[world_size], program, "correct"), strict=True):
        assert before.numbers["mrr"] != pytest.approx(mean_over_queries(), abs=1e-3)
        assert shown.numbers["mrr"] == pytest.approx(mean_over_queries(), abs=1e-6)
        assert shown.corrected == [("LRG302", True)]


@pytest.mark.parametrize("world_size", [1, 2])
def test_parts_of_queries_leave_the_number_as_it_is(pools: Mapping[int, Pool], world_size: int) -> None:
    plain = on_ranks(pools[world_size], Parts)
    for before, shown in zip(plain, on_ranks(pools[world_size], Parts, "correct"), strict=True):
        assert shown.numbers == before.numbers
        assert not [corrected for _, corrected in shown.corrected if corrected]
