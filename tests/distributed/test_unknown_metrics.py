"""A metric class that the guard does not know logs exactly as it would have without the guard."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
from lightning.pytorch import LightningModule
from torch import Tensor
from torch.utils.data import DataLoader
from torchmetrics import MeanMetric, Metric
from torchmetrics.classification import BinaryAccuracy
from torchmetrics.retrieval import RetrievalMRR
from torchmetrics.utilities import dim_zero_cat

from .harness import Pool
from .programs.data import Batch, queries, rows_of
from .ranks import on_ranks

pytestmark = pytest.mark.timeout(90)


class OwnCompute(RetrievalMRR):
    def compute(self) -> Tensor:
        return super().compute() + len(self.preds)


class Longest(Metric):
    """Not from torchmetrics, with list states of its own."""

    lengths: list[Tensor]

    def __init__(self) -> None:
        super().__init__()
        self.add_state("lengths", default=[], dist_reduce_fx="cat")

    def update(self, scores: Tensor) -> None:
        self.lengths.append(scores.new_tensor([len(scores)]))

    def compute(self) -> Tensor:
        return dim_zero_cat(self.lengths).max()


class Unknown(LightningModule):
    """Logs objects in the step, values when the epoch ends."""

    def __init__(self) -> None:
        super().__init__()
        self.own, self.longest, self.mean = OwnCompute(), Longest(), MeanMetric()
        self.accuracy, self.at_end = BinaryAccuracy(), OwnCompute()

    def val_dataloader(self) -> Any:
        return DataLoader(queries(12, empty=False), batch_size=2)

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        scores, relevance, ids = rows_of(batch)
        self.own.update(scores, relevance, ids)
        self.at_end.update(scores, relevance, ids)
        self.longest.update(scores)
        self.mean.update(scores)
        self.accuracy.update(scores, relevance)
        self.log_dict({"own": self.own, "longest": self.longest, "mean": self.mean, "accuracy": self.accuracy})

    def on_validation_epoch_end(self) -> None:
        self.log("at_end", self.at_end.compute())
        self.at_end.reset()


@pytest.mark.parametrize("mode", ["warn", "correct", "strict"])
def test_it_logs_what_it_would_have_logged(pools: Mapping[int, Pool], mode: str) -> None:
    plain, guarded = (on_ranks(pools[2], Unknown, used) for used in ("none", mode))
    for one, other in zip(plain, guarded, strict=True):
        assert other.numbers == one.numbers
        assert not other.said
        assert set(one.numbers) == {"own", "longest", "mean", "accuracy", "at_end"}
