"""A metric that keeps states and that two dataloaders feed: correct mode logs for each what it fed, and no more."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
import torch
from lightning.pytorch import LightningModule
from torch import Tensor, nn
from torch.utils.data import DataLoader
from torchmetrics import MeanMetric, Metric, MetricCollection
from torchmetrics.classification import BinaryAUROC, BinaryF1Score

from .harness import Pool
from .ranks import Shown, on_ranks

pytestmark = pytest.mark.timeout(60)

COUNT = 22
SCORES = torch.rand(COUNT, generator=torch.Generator().manual_seed(7))
LABELS = (torch.rand(COUNT, generator=torch.Generator().manual_seed(8)) > 0.5).long()
FIRST, SECOND = range(12), range(8, COUNT)


class Shared(LightningModule):
    """One set of metrics for two dataloaders; at the end it logs one number over both."""

    sizes = len(FIRST), len(SECOND)

    def __init__(self) -> None:
        super().__init__()
        self.auroc, self.mean = BinaryAUROC(), MeanMetric()
        self.group = MetricCollection({"f1": BinaryF1Score(), "auc": BinaryAUROC()})
        self.steps: list[float] = []

    def val_dataloader(self) -> Any:
        first, second = self.sizes
        return [DataLoader(FIRST[:first], batch_size=4), DataLoader(SECOND[:second], batch_size=4)]

    def validation_step(self, batch: Tensor, batch_idx: int, dataloader_idx: int) -> None:
        scores, labels = SCORES[batch], LABELS[batch]
        self.auroc.update(scores, labels)
        self.mean.update(scores)
        self.group.update(scores, labels)
        self.steps.append(float(self.mean.compute()) if self.trainer.world_size == 1 else 0.0)
        self.log("auroc", self.auroc)
        self.log("mean", self.mean)
        self.log_dict(self.group)

    def on_validation_epoch_end(self) -> None:
        self.log("all", self.mean.compute())

    @property
    def held(self) -> int:
        """The updates that the metric holds."""
        return self.mean.update_count


class Padded(Shared):
    """The sampler repeats a sample of the second dataloader."""

    sizes = 12, 13


def shown(pool: Pool, program: type[LightningModule], mode: str, **options: Any) -> list[Shown]:
    return on_ranks(pool, program, mode, guard_options={"log_findings": False}, **options)


def found(shown: Shown) -> set[tuple[str, str | None, bool]]:
    return {(one.code, one.key, one.corrected) for one in shown.found}


def expected(program: type[Shared]) -> dict[str, float]:
    """What metrics of their own would give each dataloader, and one over both for the rest."""
    numbers, (first, second) = {}, program.sizes
    samples = [torch.tensor(FIRST[:first]), torch.tensor(SECOND[:second])]
    makers: dict[str, Any] = {"auroc": BinaryAUROC, "mean": MeanMetric, "f1": BinaryF1Score, "auc": BinaryAUROC}
    for index, batch in enumerate(samples):
        for name, maker in makers.items():
            metric: Metric = maker()
            metric.update(*([SCORES[batch]] if name == "mean" else [SCORES[batch], LABELS[batch]]))
            numbers[f"{name}/dataloader_idx_{index}"] = float(metric.compute())
    return numbers


KEYS = [f"{name}/dataloader_idx_1" for name in ("auc", "auroc", "f1", "mean")]


@pytest.mark.parametrize("world", [1, 2])
@pytest.mark.parametrize("program", [Shared, Padded])
def test_each_dataloader_has_the_number_of_its_own_samples(
    pools: Mapping[int, Pool], program: type[Shared], world: int
) -> None:
    modes = ("none", "warn", "correct")
    ranks = (shown(pools[world], program, mode, keeps=["steps", "held"]) for mode in modes)
    for plain, warned, corrected in zip(*ranks, strict=True):
        assert warned.numbers == plain.numbers
        numbers = dict(corrected.numbers)
        if program is Shared:  # what is logged in the hook, over both dataloaders, stays as it is
            assert numbers.pop("all") == pytest.approx(plain.numbers["all"])
            assert {(code, key) for code, key, _ in found(warned)} == {("LRG404", key) for key in KEYS}
        numbers.pop("all", None)
        assert numbers == pytest.approx(expected(program))
        assert {("LRG404", key, True) for key in KEYS} <= found(corrected)
        assert corrected.kept == plain.kept


# --- stages -----------------------------------------------------------------------------------------------------


class OfTwoStages(LightningModule):
    """One metric for training and validation, which Lightning resets after the validation."""

    def __init__(self) -> None:
        super().__init__()
        self.layer, self.mean = nn.Linear(1, 1), MeanMetric()
        self.group = MetricCollection({"f1": BinaryF1Score(), "auc": BinaryAUROC(thresholds=5)})
        self.trained: list[int] = []

    def train_dataloader(self) -> Any:
        return DataLoader(FIRST, batch_size=3)

    def val_dataloader(self) -> Any:
        return DataLoader(SECOND[:12], batch_size=3)

    def training_step(self, batch: Tensor, batch_idx: int) -> Tensor:
        self.trained += batch.tolist()
        self.feed(batch, "train")
        return self.layer(SCORES[batch, None]).sum()

    def validation_step(self, batch: Tensor, batch_idx: int) -> None:
        self.feed(batch, "val")

    def feed(self, batch: Tensor, stage: str) -> None:
        self.mean.update(SCORES[batch])
        self.group.update(SCORES[batch], LABELS[batch])
        self.log(f"{stage}_mean", self.mean, on_step=False, on_epoch=True)
        self.log_dict({f"{stage}_{name}": metric for name, metric in self.group.items()}, on_step=False, on_epoch=True)

    def configure_optimizers(self) -> Any:
        return torch.optim.SGD(self.parameters(), lr=0.0)


class Restarting(OfTwoStages):
    """The training itself forgets its first half."""

    def training_step(self, batch: Tensor, batch_idx: int) -> Tensor:
        if batch_idx == self.trainer.num_training_batches // 2:
            self.mean.reset()
            self.group.reset()
            self.trained.clear()
        return super().training_step(batch, batch_idx)


class ByHand(OfTwoStages):
    """The program resets before the validation too."""

    def on_validation_epoch_start(self) -> None:
        self.mean.reset()
        self.group.reset()


def of_stages(first: Any) -> dict[str, float]:
    """What metrics of their own would give each stage."""
    numbers: dict[str, float] = {}
    for stage, samples in {"train": first, "val": SECOND[:12]}.items():
        scores, labels = SCORES[torch.as_tensor(samples)], LABELS[torch.as_tensor(samples)]
        numbers[f"{stage}_mean"] = float(scores.mean())
        for name, metric in {"f1": BinaryF1Score(), "auc": BinaryAUROC(thresholds=5)}.items():
            numbers[f"{stage}_{name}"] = float(metric(scores, labels))
    return numbers


@pytest.mark.parametrize("world", [1, 2])
@pytest.mark.parametrize("often", [1.0, 0.5])
@pytest.mark.parametrize("program", [OfTwoStages, Restarting, ByHand])
def test_each_stage_has_the_number_of_its_own_samples(
    pools: Mapping[int, Pool], program: type[OfTwoStages], often: float, world: int
) -> None:
    options = {"method": "fit", "max_epochs": 1, "num_sanity_val_steps": 0, "val_check_interval": often}
    modes = ("none", "correct")
    plain, corrected = (shown(pools[world], program, mode, keeps=["trained"], **options) for mode in modes)
    expected = of_stages([sample for one in corrected for sample in one.kept["trained"]])
    for one in plain:
        assert one.numbers["train_mean"] != pytest.approx(expected["train_mean"])
    for one in corrected:
        assert one.numbers == pytest.approx(expected)
        keys = {name for name in expected if name.startswith("train") or program is not ByHand}
        assert found(one) == {("LRG404", key, True) for key in keys}


def test_warn_mode_names_what_another_stage_has_reset(pools: Mapping[int, Pool]) -> None:
    [plain], [warned] = (
        shown(pools[1], OfTwoStages, mode, method="fit", max_epochs=1, num_sanity_val_steps=0)
        for mode in ("none", "warn")
    )
    assert warned.numbers == pytest.approx(plain.numbers, nan_ok=True)
    assert {one.key for one in warned.found if "lacks 4 updates of its" in one.message} == {
        "train_mean",
        "train_f1",
        "train_auc",
    }
