"""A program with a MetricCollection of 12 metrics, on queries that are whole on their rank or split over ranks."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Any, cast

import torch
from lightning.pytorch import LightningModule
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from bench.collectives import Meter
from bench.epochs import plain_dict, validate
from bench.metrics import collection

IDS = ("apart", "interleaved", "shuffled", "split")
WAYS = {"hook": "computed in a hook", "object": "logged as objects"}


@dataclass(frozen=True)
class Work:
    """What a program evaluates.

    Attributes:
        queries: Queries of all ranks together.
        updates: Updates on each rank.
        ids: "apart": each rank has its own range of ids; "interleaved": each has every W-th id, as the distributed
            sampler deals them; "shuffled": each has any ids; "split": every query has rows on every rank. In all but
            the last, every query is whole on its rank.
        length: Rows of a query.
        way: "hook": ``compute()`` is logged in the hook at the end of the epoch; "object": the collection is logged
            in every step.
    """

    queries: int
    updates: int
    ids: str
    length: int = 10
    way: str = "hook"

    @property
    def rows(self) -> int:
        return self.queries * self.length


class Lists(Dataset[tuple[Tensor, Tensor, Tensor]]):
    """Samples of ``length`` rows; with the distributed sampler, sample i lies on rank i modulo the world size."""

    def __init__(self, work: Work, world_size: int) -> None:
        random = torch.Generator().manual_seed(7)
        shape = (work.queries, work.length)
        self.scores = torch.rand(shape, generator=random) + 0.001
        self.relevance = (torch.rand(shape, generator=random) < 0.2).long()
        self.relevance[:, 0] = 1
        self.ids = _ids(work, world_size)

    def __len__(self) -> int:
        return len(self.scores)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor, Tensor]:
        return self.scores[index], self.relevance[index], self.ids[index]


def _ids(work: Work, world_size: int) -> Tensor:
    """Query ids of shape (samples, length)."""
    sample = torch.arange(work.queries)
    group, rank = sample // world_size, sample % world_size
    if work.ids == "apart":
        return (rank * (work.queries // world_size) + group)[:, None].expand(-1, work.length)
    if work.ids == "interleaved":
        return sample[:, None].expand(-1, work.length)
    if work.ids == "shuffled":
        random = torch.Generator().manual_seed(7)
        return torch.randperm(work.queries, generator=random)[:, None].expand(-1, work.length)
    # the samples of a group lie on different ranks and share out the rows of as many queries
    return group[:, None] * world_size + (rank[:, None] + torch.arange(work.length)) % world_size


class Collected(LightningModule):
    """Updates the collection in steps."""

    def __init__(self, work: Work) -> None:
        super().__init__()
        self.work = work
        self.metrics = collection()

    def val_dataloader(self) -> DataLoader[Any]:
        world_size = int(os.environ["WORLD_SIZE"])
        batch = self.work.queries // world_size // self.work.updates
        return DataLoader(Lists(self.work, world_size), batch_size=batch)

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        self.metrics.update(batch[0].flatten(), batch[1].flatten(), indexes=batch[2].flatten())
        if self.work.way == "object":
            self.log_dict(cast(Any, self.metrics))


class CollectedInHook(Collected):
    """Logs the value when the epoch ends."""

    def on_validation_epoch_end(self) -> None:
        self.log_dict(self.metrics.compute())
        self.metrics.reset()


def evaluate(work: Work, mode: str) -> dict[str, Any]:
    """What a rank does."""
    program = CollectedInHook if work.way == "hook" else Collected
    return plain_dict(validate(program(work), Meter(), mode))
