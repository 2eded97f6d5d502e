"""Programs that log the mean reciprocal rank of 30 queries, right or wrong, and what the numbers must be.

`Restarting` is wrong on any number of devices, one included: its query ids start again in each batch, so that
torchmetrics merges different queries. Numbers to compare with come from torchmetrics itself, on one process.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import islice
from types import ModuleType
from typing import Any

import lightning.pytorch as lightning
import torch
from lightning.pytorch import LightningModule
from torch import Tensor
from torch.utils.data import DataLoader
from torchmetrics.retrieval import RetrievalMRR

from tests.distributed.programs.data import Batch, queries, rows_of

QUERIES = 30
BATCH = 7  # the last batch is short, which shows that ids number the samples of a batch


def batches(size: int = BATCH, count: int = QUERIES) -> Iterator[Batch]:
    """The batches that one process sees."""
    yield from loader(size, count)


def loader(size: int = BATCH, count: int = QUERIES) -> DataLoader[Batch]:
    return DataLoader(queries(count, empty=False), batch_size=size)


def in_words(part: str) -> str:
    """A pattern that finds a part of a warning, however its lines are broken."""
    return r"(?s).*" + r"\s+".join(map(re.escape, part.split()))


def restarting_ids(batch: Batch) -> Tensor:
    return torch.arange(len(batch["query"]))


def reference(size: int = BATCH, count: int = QUERIES, first: int | None = None) -> float:
    """The right number, of all batches or of the first few."""
    metric = RetrievalMRR()
    for batch in islice(batches(size, count), first):
        metric.update(*rows_of(batch))
    return float(metric.compute())


def merged(size: int = BATCH, count: int = QUERIES, first: int | None = None) -> float:
    """The number that comes of ids that restart in each batch, of all or of the first few."""
    metric = RetrievalMRR()
    for batch in islice(batches(size, count), first):
        metric.update(*rows_of(batch, restarting_ids(batch)))
    return float(metric.compute())


class Trainable:
    """What every program needs to be fitted, and the same code for validation and test."""

    loader_size = BATCH

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(1))

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        return (self.weight * batch["score"]).mean()

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.1)

    def train_dataloader(self) -> Any:
        return loader(self.loader_size)

    def val_dataloader(self) -> Any:
        return loader(self.loader_size)

    def test_dataloader(self) -> Any:
        return loader(self.loader_size)

    def test_step(self, batch: Batch, batch_idx: int) -> None:
        self.validation_step(batch, batch_idx)

    def on_test_epoch_end(self) -> None:
        self.on_validation_epoch_end()


class RestartingIds(Trainable):
    """Ids restart in each batch; the metric is logged as an object."""

    def __init__(self) -> None:
        super().__init__()
        self.metric = RetrievalMRR()

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        self.metric.update(*rows_of(batch, restarting_ids(batch)))
        self.log("mrr", self.metric, prog_bar=True)


class Restarting(RestartingIds, LightningModule):
    """The same, as a module of `lightning`."""


class Sharded(Trainable, LightningModule):
    """Logs `forward()` without any combination: on several ranks each shows its own shard."""

    def __init__(self) -> None:
        super().__init__()
        self.metric = RetrievalMRR()

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        self.log("mrr", self.metric(*rows_of(batch)), prog_bar=True, batch_size=len(batch["query"]))


class Right(Trainable, LightningModule):
    """Ids of the data set, the metric logged as an object: right on any number of devices."""

    def __init__(self) -> None:
        super().__init__()
        self.metric = RetrievalMRR()

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        self.metric.update(*rows_of(batch))
        self.log("mrr", self.metric)


def make_trainer(*callbacks: Any, package: ModuleType = lightning, **options: Any) -> Any:
    """A Trainer on one process of this machine, without any output."""
    quiet: dict[str, Any] = {
        "accelerator": "cpu",
        "devices": 1,
        "logger": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "enable_checkpointing": False,
    }
    return package.Trainer(callbacks=list(callbacks), **(quiet | options))


def floats(metrics: dict[str, Any]) -> dict[str, float]:
    return {name: float(value) for name, value in metrics.items()}


def board(folder: str) -> Any:
    """What a TensorBoard logger has written."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    return EventAccumulator(folder).Reload()
