"""A metric object that combines no ranks is reported where these come to different numbers, and stays as it is."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
import torch
from lightning.pytorch import LightningModule
from torch import Tensor
from torch.utils.data import DataLoader
from torchmetrics import MeanMetric, Metric
from torchmetrics.classification import BinaryAUROC

from .evaluate import Recorder, guards, make_trainer, recorded_warnings
from .harness import Pool

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


def run(mode: str) -> dict[str, Any]:
    """What this rank shows."""
    guard = guards(mode, {})
    trainer = make_trainer(guard, Recorder())
    with recorded_warnings():
        trainer.validate(Lone(), verbose=False)
    return {
        "values": {name: float(value) for name, value in trainer.callback_metrics.items()},
        "found": {
            code: sorted(one.key for each in guard for one in each.findings if one.code == code)
            for code in ("LRG203", "LRG403")
        },
    }


@pytest.mark.parametrize("mode", ["warn", "correct"])
def test_a_shard_is_reported_and_stays(pools: Mapping[int, Pool], mode: str) -> None:
    plain = [outcome.value for outcome in pools[2].run(f"{__name__}:run", mode="none")]
    shown = [outcome.value for outcome in pools[2].run(f"{__name__}:run", mode=mode)]
    lone = ["auroc", "in_place", "mean", "told"]
    for rank in range(2):
        # a shard has no sample twice
        assert shown[rank]["found"] == {"LRG203": lone, "LRG403": ["gathered", "right"]}
        assert {key: shown[rank]["values"][key] for key in lone} == {key: plain[rank]["values"][key] for key in lone}
