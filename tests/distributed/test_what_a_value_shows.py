"""A key shows the rows and settings that its value was made of, whatever becomes of the metric afterwards."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
import torch
from lightning.pytorch import LightningModule
from torch import Tensor
from torch.nn import functional
from torch.utils.data import DataLoader, Subset
from torchmetrics.retrieval import RetrievalMRR, RetrievalRecall

from .harness import Pool
from .ranks import Shown, on_ranks

pytestmark = pytest.mark.timeout(120)

SAMPLES, CANDIDATES, BATCH = 24, 5, 4
_random = torch.Generator().manual_seed(13)
SCORES = torch.rand(SAMPLES, CANDIDATES, generator=_random)
RELEVANCE = functional.one_hot(torch.randint(CANDIDATES, (SAMPLES,), generator=_random), CANDIDATES)


class Program(LightningModule):
    """Queries of one sample each, whose ids are those of the data."""

    def val_dataloader(self) -> Any:
        return DataLoader(range(SAMPLES), batch_size=BATCH)

    def feed(self, metric: Any, index: Tensor) -> Any:
        ids = index.repeat_interleave(CANDIDATES)
        metric.update(SCORES[index].flatten(), RELEVANCE[index].flatten(), indexes=ids)
        return metric.compute()


class Hook(Program):
    def __init__(self) -> None:
        super().__init__()
        self.metric: Any = RetrievalRecall(top_k=1)
        self.batches: list[Tensor] = []

    def validation_step(self, batch: Tensor, batch_idx: int) -> None:
        self.batches.append(batch)


class GrowsInHook(Hook):
    """Two values of one metric, which is fed on between them."""

    def on_validation_epoch_end(self) -> None:
        index = torch.cat(self.batches)
        self.log("some", self.feed(self.metric, index[index % 4 < 2]))
        self.log("all", self.feed(self.metric, index[index % 4 >= 2]))


class ChangesInHook(Hook):
    """One metric for each cut-off in turn."""

    def on_validation_epoch_end(self) -> None:
        for top_k in (1, 2, 4):
            self.metric.top_k = top_k
            self.log(f"recall@{top_k}", self.feed(self.metric, torch.cat(self.batches)))
            self.metric.reset()


class ChangesUnfed(Hook):
    """The same rows at each cut-off."""

    def on_validation_epoch_end(self) -> None:
        self.feed(self.metric, torch.cat(self.batches))
        for top_k in (1, 2, 4):
            self.metric.top_k, self.metric._computed = top_k, None
            self.log(f"recall@{top_k}", self.metric.compute())


class ChangesInStep(Program):
    def __init__(self) -> None:
        super().__init__()
        self.metric: Any = RetrievalRecall(top_k=1)

    def validation_step(self, batch: Tensor, batch_idx: int) -> None:
        ids = batch.repeat_interleave(CANDIDATES)
        for top_k in (1, 2, 4):
            self.metric.top_k = top_k
            value = self.metric(SCORES[batch].flatten(), RELEVANCE[batch].flatten(), indexes=ids)
            self.log(f"recall@{top_k}", value, sync_dist=True, batch_size=len(batch))


class ResetFirst(Program):
    """Resets its metric before it is fed in a step, and one rank has a single batch."""

    def __init__(self) -> None:
        super().__init__()
        self.metric = RetrievalMRR(sync_on_compute=False)

    def val_dataloader(self) -> Any:
        size, rank = self.trainer.world_size, self.global_rank
        chosen = range(12) if size == 1 else range(4) if rank == 0 else range(4, 12)
        return DataLoader(Subset(range(SAMPLES), chosen), batch_size=BATCH)

    def validation_step(self, batch: Tensor, batch_idx: int) -> None:
        self.metric.reset()
        self.log("mrr", self.feed(self.metric, batch), sync_dist=True, batch_size=float(len(batch)))


class OnceInTheMiddle(Program):
    """Logs a value of a growing metric in one batch only."""

    def __init__(self) -> None:
        super().__init__()
        self.metric = RetrievalMRR()

    def validation_step(self, batch: Tensor, batch_idx: int) -> None:
        value = self.feed(self.metric, batch)
        if batch_idx == 1:
            self.log("part", value)


RIGHT = (GrowsInHook, ChangesInHook, ChangesUnfed, ChangesInStep, ResetFirst)


def shown(pools: Mapping[int, Pool], ranks: int, program: type[Program], mode: str) -> Shown:
    """What rank zero shows."""
    return on_ranks(pools[ranks], program, mode, use_distributed_sampler=program is not ResetFirst)[0]


@pytest.mark.parametrize("program", RIGHT)
def test_a_right_number_stays(pools: Mapping[int, Pool], program: type[Program]) -> None:
    plain = shown(pools, 1, program, "none")
    for ranks in (1, 2):
        for mode in ("warn", "correct"):
            result = shown(pools, ranks, program, mode)
            assert result.numbers == pytest.approx(plain.numbers, rel=1e-6)
            assert not result.found


@pytest.mark.parametrize("ranks", [1, 2])
def test_what_one_device_would_have_seen_by_then_is_not_known(pools: Mapping[int, Pool], ranks: int) -> None:
    plain, corrected = (shown(pools, ranks, OnceInTheMiddle, mode) for mode in ("none", "correct"))
    assert (corrected.numbers, corrected.found) == (plain.numbers, [])
