"""What a program sees in a step is its own: in every mode, on any number of devices, collectives included."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
import torch
from lightning.pytorch import LightningModule
from torch import Tensor
from torch.utils.data import DataLoader
from torchmetrics import MetricCollection
from torchmetrics.retrieval import RetrievalMRR, RetrievalRecall

from .harness import Pool
from .programs.data import Batch, queries, rows_of
from .ranks import on_ranks

pytestmark = pytest.mark.timeout(120)
WORLDS = (1, 2, pytest.param(3, marks=pytest.mark.nightly))
QUERIES, BATCH = 36, 3


class Program(LightningModule):
    """Notes every number that it sees in a step, and what it did because of it."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[Any] = []

    def val_dataloader(self) -> DataLoader[Batch]:
        return DataLoader(queries(QUERIES, empty=False), batch_size=BATCH)

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        raise NotImplementedError

    def see(self, value: Any) -> None:
        parts = value.values() if isinstance(value, dict) else [value]
        self.seen += [float(part) for part in parts]


class Computes(Program):
    def __init__(self, **options: Any) -> None:
        super().__init__()
        self.metric = RetrievalMRR(**options)

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        self.metric.update(*rows_of(batch))
        value = self.metric.compute()
        self.log("value", value)
        self.see(value)


class Forwards(Computes):
    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        value = self.metric(*rows_of(batch))
        self.log("value", value)
        self.see(value)


class ForwardsSynced(Forwards):
    def __init__(self) -> None:
        super().__init__(dist_sync_on_step=True)


class Makes(Program):
    """A collection for each step, whose ids start again."""

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        metrics = MetricCollection({"mrr": RetrievalMRR(), "recall": RetrievalRecall(top_k=2)}).to(self.device)
        scores, target, ids = rows_of(batch, torch.arange(len(batch["query"])))
        metrics.update(scores, target, indexes=ids)
        values = metrics.compute()
        self.log_dict(values, batch_size=len(batch["query"]), sync_dist=True)
        self.see(values)


class SyncsByHand(Computes):
    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        self.metric.update(*rows_of(batch))
        self.metric.sync(should_sync=self.trainer.world_size > 1)
        self.see(sum(part.numel() for part in _parts(self.metric.preds)))
        if self.trainer.world_size > 1:
            self.metric.unsync()
        self.see(sum(part.numel() for part in _parts(self.metric.preds)))
        self.log("value", self.metric.compute())
        self.metric.reset()


def _parts(state: Any) -> list[Tensor]:
    return state if isinstance(state, list) else [state]


class Branches(Computes):
    """Goes on by the value, which is the same on all ranks as it is combined."""

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        self.metric.update(*rows_of(batch))
        value = self.metric.compute()
        if value > 0.6:
            self.seen.append("reset")
            self.metric.reset()
        self.see(value)
        self.log("value", value)


class RankAlone(Computes):
    """One rank looks again at what all have computed: torchmetrics has kept it, so that nobody waits."""

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        self.metric.update(*rows_of(batch))
        self.log("value", self.metric.compute())
        if self.global_rank == 0:
            self.see(self.metric.compute())


PROGRAMS = (Computes, Forwards, ForwardsSynced, Makes, SyncsByHand, Branches, RankAlone)


def seen(pool: Pool, program: type[Program], mode: str) -> list[list[Any]]:
    """What every rank saw in its steps."""
    # in strict mode faults of the program would end the run before all of it was seen
    options = {"guard_options": {"ignore": ["LRG"]}} if mode == "strict" else {}
    return [shown.kept["seen"] for shown in on_ranks(pool, program, mode, keeps=["seen"], **options)]


@pytest.mark.parametrize("world_size", WORLDS)
@pytest.mark.parametrize("program", PROGRAMS)
def test_every_mode_shows_what_plain_shows(pools: Mapping[int, Pool], program: type[Program], world_size: int) -> None:
    plain = seen(pools[world_size], program, "none")
    assert any(plain)
    for mode in ("warn", "correct", "strict"):
        assert seen(pools[world_size], program, mode) == plain, mode
