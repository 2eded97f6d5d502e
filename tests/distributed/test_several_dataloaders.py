"""Several dataloaders of one evaluation: what is found is about the dataloader that is behind a key."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

import pytest
import torch
from lightning.pytorch import LightningModule
from lightning.pytorch.utilities.combined_loader import CombinedLoader
from torch import Tensor
from torch.utils.data import DataLoader
from torchmetrics import MeanMetric, MetricCollection
from torchmetrics.classification import BinaryAccuracy, BinaryF1Score
from torchmetrics.retrieval import RetrievalMRR

from .harness import Pool
from .ranks import on_ranks

pytestmark = pytest.mark.timeout(60)

SCORES = torch.rand(60, generator=torch.Generator().manual_seed(1))
LABELS = (SCORES > 0.6).long()


class OneForEach(LightningModule):
    """Has metrics for each of two dataloaders, the first of which has a sample too few for two devices."""

    sizes = (21, 24)

    def __init__(self) -> None:
        super().__init__()
        metrics = [MetricCollection(BinaryAccuracy(), BinaryF1Score(), prefix=f"{index}/") for index in range(2)]
        self.collections = torch.nn.ModuleList(metrics)
        self.losses = torch.nn.ModuleList([MeanMetric(), MeanMetric()])
        self.ranks = torch.nn.ModuleList([RetrievalMRR(), RetrievalMRR()])

    def val_dataloader(self) -> Any:
        return [DataLoader(range(size), batch_size=4) for size in self.sizes]

    def validation_step(self, batch: Tensor, batch_idx: int, dataloader_idx: int = 0) -> None:
        scores, labels = SCORES[batch], LABELS[batch]
        self.collections[dataloader_idx].update(scores, labels)
        self.losses[dataloader_idx].update(scores)
        self.log(f"{dataloader_idx}/loss", self.losses[dataloader_idx], add_dataloader_idx=False)
        self.log(f"{dataloader_idx}/mean", scores.mean(), sync_dist=True, add_dataloader_idx=False)
        rows = torch.stack([scores, 1 - scores], 1), torch.stack([labels, 1 - labels], 1), batch[:, None].expand(-1, 2)
        self.ranks[dataloader_idx].update(*(column.flatten() for column in rows))
        self.log(f"{dataloader_idx}/mrr", self.ranks[dataloader_idx], add_dataloader_idx=False)

    def on_validation_epoch_end(self) -> None:
        for metrics in self.collections:
            self.log_dict(metrics.compute())
            metrics.reset()


@pytest.mark.parametrize("mode", ["warn", "correct"])
def test_a_repeated_sample_of_one_dataloader_is_not_in_keys_of_the_other(pools: Mapping[int, Pool], mode: str) -> None:
    (plain, _), (shown, _) = (on_ranks(pools[2], OneForEach, one) for one in ("none", mode))
    about = {finding.key: finding for finding in shown.found if finding.key in plain.numbers}
    assert {key[0] for key in about} == {"0"}
    assert about.keys() >= {"0/BinaryAccuracy", "0/loss", "0/mean"}
    assert {key: number for key, number in shown.numbers.items() if key[0] == "1"} == {
        key: number for key, number in plain.numbers.items() if key[0] == "1"
    }
    # also where the hook has reset the metric
    advised = {key: finding.fix.startswith("Use mode='correct'") for key, finding in about.items()}
    assert set(advised.values()) == {mode == "warn"}


class OneForBoth(OneForEach):
    """Has one metric for both."""

    def __init__(self) -> None:
        super().__init__()
        self.accuracy = BinaryAccuracy()

    def validation_step(self, batch: Tensor, batch_idx: int, dataloader_idx: int = 0) -> None:
        self.accuracy.update(SCORES[batch] - 0.1, LABELS[batch])

    def on_validation_epoch_end(self) -> None:
        self.log("accuracy", self.accuracy.compute())
        self.accuracy.reset()


@pytest.mark.parametrize("mode", ["warn", "correct"])
def test_a_metric_that_another_dataloader_has_fed_since_is_not_corrected(pools: Mapping[int, Pool], mode: str) -> None:
    (plain, _), (shown, _) = (on_ranks(pools[2], OneForBoth, one) for one in ("none", mode))
    assert shown.numbers == plain.numbers
    (finding,) = shown.found
    assert (finding.code, finding.key, finding.corrected) == ("LRG403", "accuracy", False)
    assert "mode='correct'" not in finding.fix


class AtOnce(LightningModule):
    """Gets a batch from each of two dataloaders at once, and weighs the mean of each by its samples."""

    def __init__(self, mode: str) -> None:
        super().__init__()
        self.mode = mode

    def val_dataloader(self) -> Any:
        loaders = {name: DataLoader(range(size), batch_size=4) for name, size in (("short", 22), ("full", 24))}
        return CombinedLoader(loaders, self.mode)

    def validation_step(self, batch: dict[str, Tensor], batch_idx: int) -> None:
        for name, samples in batch.items():
            self.log(name, SCORES[samples].mean(), sync_dist=True, batch_size=len(samples), add_dataloader_idx=False)


@pytest.mark.parametrize("combined", ["min_size", "max_size"])
@pytest.mark.parametrize("world_size", [1, 2])
def test_a_batch_of_several_dataloaders_has_no_one_size(
    pools: Mapping[int, Pool], world_size: int, combined: str
) -> None:
    program = partial(AtOnce, combined)
    plain, corrected = (on_ranks(pools[world_size], program, mode) for mode in ("none", "correct"))
    for one, other in zip(plain, corrected, strict=True):
        assert one.numbers["full"] == pytest.approx(float(SCORES[:24].mean()))
        assert other.numbers == one.numbers
        assert not other.found
