"""A metric object that combines no ranks is reported where these come to different numbers, and stays as it is."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

import pytest
import torch
import torch.distributed as dist
from lightning.pytorch import LightningModule
from torch import Tensor
from torch.utils.data import DataLoader
from torchmetrics import MeanMetric, Metric
from torchmetrics.classification import BinaryAUROC

from .harness import Pool
from .ranks import on_ranks

pytestmark = pytest.mark.timeout(120)

COUNT = 11  # one sample is repeated on 2 ranks
SCORES = torch.rand(COUNT, generator=torch.Generator().manual_seed(3))
DATA = [(score, index % 2) for index, score in enumerate(SCORES)]


class InPlace(Metric):
    """Its ``compute()`` writes to the tensor that it holds."""

    total: Tensor

    def __init__(self) -> None:
        super().__init__(sync_on_compute=False)
        self.add_state("total", torch.zeros(2), dist_reduce_fx="sum")

    def update(self, scores: Tensor) -> None:
        self.total += torch.stack([scores.sum(), torch.tensor(float(len(scores)))])

    def compute(self) -> Tensor:
        self.total[0] /= self.total[1]
        return self.total[0].clone()


class Lone(LightningModule):
    """Metrics that stay on their rank, two that combine ranks, and one for which the program gathers."""

    def __init__(self) -> None:
        super().__init__()
        self.auroc, self.mean = BinaryAUROC(sync_on_compute=False), MeanMetric(sync_on_compute=False)
        self.in_place, self.told = InPlace(), MeanMetric(distributed_available_fn=lambda: False)
        self.gathered, self.right = MeanMetric(sync_on_compute=False), MeanMetric()

    def val_dataloader(self) -> Any:
        return DataLoader(DATA, batch_size=2)

    def validation_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> None:
        scores, labels = batch
        self.auroc.update(scores, labels)
        self.gathered.update(self.all_gather(scores))
        for metric in (self.mean, self.in_place, self.told, self.right):
            metric.update(scores)
        self.log_dict({"auroc": self.auroc, "mean": self.mean, "in_place": self.in_place})
        self.log_dict({"told": self.told, "gathered": self.gathered, "right": self.right})


@pytest.mark.parametrize("mode", ["warn", "correct"])
def test_a_shard_is_reported_and_stays(pools: Mapping[int, Pool], mode: str) -> None:
    lone = ["auroc", "in_place", "mean", "told"]
    for plain, shown in zip(on_ranks(pools[2], Lone), on_ranks(pools[2], Lone, mode), strict=True):
        found = sorted((one.code, one.key) for one in shown.findings if one.code in ("LRG203", "LRG403"))
        # a shard has no sample twice
        assert found == [*(("LRG203", key) for key in lone), ("LRG403", "gathered"), ("LRG403", "right")]
        assert {key: shown.numbers[key] for key in lone} == {key: plain.numbers[key] for key in lone}


class CombinesItself(Metric):
    """Its ``compute()`` combines the ranks without torchmetrics; without states torchmetrics could not."""

    total: Tensor

    def __init__(self, keeps_states: bool) -> None:
        super().__init__(sync_on_compute=not keeps_states)
        if keeps_states:
            self.add_state("total", torch.zeros(2), dist_reduce_fx="sum")
        else:
            self.total = torch.zeros(2)

    def update(self, scores: Tensor) -> None:
        self.total = self.total + torch.stack([scores.sum(), torch.tensor(float(len(scores)))])

    def compute(self) -> Tensor:
        total = self.total.clone()
        dist.all_reduce(total)
        return total[0] / total[1]


class Keeps(CombinesItself):
    """Torchmetrics has nothing to combine, and the metric does not either."""

    def __init__(self) -> None:
        super().__init__(keeps_states=False)

    def compute(self) -> Tensor:
        return self.total[0] / self.total[1]


class ByHand(LightningModule):
    """Rank 1 feeds nothing, and its ``compute()`` takes part in that of rank 0."""

    def __init__(self, keeps_states: bool) -> None:
        super().__init__()
        self.metric = CombinesItself(keeps_states)

    def val_dataloader(self) -> Any:
        return DataLoader(DATA[:8], batch_size=2)

    def validation_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> None:
        if self.global_rank == 0:
            self.metric.update(batch[0])
        self.log("value", self.metric)


@pytest.mark.parametrize("keeps_states", [True, False])
@pytest.mark.parametrize("mode", ["warn", "correct"])
def test_a_compute_that_combines_ranks_itself_runs_once(
    pools: Mapping[int, Pool], mode: str, keeps_states: bool
) -> None:
    program = partial(ByHand, keeps_states)
    plain, shown = on_ranks(pools[2], program), on_ranks(pools[2], program, mode)
    assert [rank.numbers for rank in shown] == [rank.numbers for rank in plain]
    assert not shown[0].found


class Stateless(LightningModule):
    """Metrics without states, logged as an object, from the hook, and with ``sync_dist``."""

    def __init__(self) -> None:
        super().__init__()
        self.lone, self.summed = Keeps(), CombinesItself(keeps_states=False)

    def val_dataloader(self) -> Any:
        return DataLoader(DATA[:8], batch_size=2)

    def validation_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> None:
        self.lone.update(batch[0])
        self.summed.update(batch[0])
        self.log("object", self.lone)

    def on_validation_epoch_end(self) -> None:
        self.log("value", self.lone.compute())
        self.log("synced", self.lone.compute(), sync_dist=True)
        self.log("by_hand", self.summed.compute())


@pytest.mark.parametrize("mode", ["warn", "correct"])
def test_a_metric_without_states_shows_its_rank(pools: Mapping[int, Pool], mode: str) -> None:
    plain, shown = on_ranks(pools[2], Stateless), on_ranks(pools[2], Stateless, mode)
    assert [rank.numbers for rank in shown] == [rank.numbers for rank in plain]
    # the mean of equal shards is right
    assert sorted((one.code, one.key) for one in shown[0].findings) == [("LRG203", "object"), ("LRG203", "value")]
    assert all("add_state()" in (one.fix or "") for one in shown[0].findings)
