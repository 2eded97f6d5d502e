"""The ways to log a retrieval metric, each on queries that are whole, interleaved, or split over batches and ranks."""

from __future__ import annotations

from typing import Any

from lightning.pytorch import LightningModule
from torch import Tensor
from torch.utils.data import DataLoader
from torchmetrics import MetricCollection
from torchmetrics.retrieval import RetrievalMAP, RetrievalMRR, RetrievalNormalizedDCG, RetrievalRecall

from tests.distributed.programs.data import Batch, queries, rows, rows_of

from .programs import Trainable


class Way(Trainable, LightningModule):
    """`updates` batches on each rank, of three samples."""

    size = 3

    def __init__(self, updates: int, split: bool) -> None:
        super().__init__()
        self.metric = RetrievalMRR()
        self.count = updates * self.size * 2
        self.split = split

    def val_dataloader(self) -> Any:
        if self.split:  # one row a sample: with the distributed sampler every query lies on both ranks
            return DataLoader(rows(self.count + -self.count % 4), batch_size=self.size)
        return DataLoader(queries(self.count, empty=False), batch_size=self.size)

    def rows(self, batch: Batch) -> tuple[Tensor, Tensor, Tensor]:
        return (batch["score"], batch["target"], batch["query"]) if self.split else rows_of(batch)


class Object(Way):
    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        self.metric.update(*self.rows(batch))
        self.log("mrr", self.metric)


class Forward(Way):
    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        self.log("mrr", self.metric(*self.rows(batch)), batch_size=self.size)


class AtEnd(Way):
    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        self.metric.update(*self.rows(batch))

    def on_validation_epoch_end(self) -> None:
        self.log("mrr", self.metric.compute())
        self.metric.reset()


class InStep(Way):
    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        metric = RetrievalMRR(sync_on_compute=False)
        metric.update(*self.rows(batch))
        self.log("mrr", metric.compute(), batch_size=self.size, sync_dist=True)


class Twelve(Way):
    """Twelve metrics over the same rows are logged as objects."""

    def __init__(self, updates: int, split: bool) -> None:
        super().__init__(updates, split)
        classes = {"mrr": RetrievalMRR, "map": RetrievalMAP, "ndcg": RetrievalNormalizedDCG, "recall": RetrievalRecall}
        named = {name: cls() if name == "mrr" else cls(top_k=10) for name, cls in classes.items()}
        named |= {f"{name}@{k}": cls(top_k=k) for k in (1, 5) for name, cls in classes.items()}
        self.metrics = MetricCollection(named)

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        self.metrics.update(*self.rows(batch))
        self.log_dict(self.metrics)


WAYS = {way.__name__: way for way in (Object, Forward, AtEnd, InStep, Twelve)}


def reference(updates: int, split: bool) -> float:
    """The right number: all rows in one metric."""
    program, metric = Object(updates, split), RetrievalMRR()
    for batch in program.val_dataloader():
        metric.update(*program.rows(batch))
    return float(metric.compute())
