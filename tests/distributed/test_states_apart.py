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

from .evaluate import Recorder, guards, make_trainer, recorded_warnings
from .harness import Pool

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


class Padded(Shared):
    """The sampler repeats a sample of the second dataloader."""

    sizes = 12, 13


def evaluate(program: str, mode: str) -> dict[str, Any]:
    guard, module = guards(mode, {"log_findings": False}), {"even": Shared, "padded": Padded}[program]()
    with recorded_warnings():
        trainer = make_trainer(guard, Recorder())
        trainer.validate(module, verbose=False)
    findings = [one for each in guard for one in each.findings if one.severity != "note"]
    return {
        "shown": {key: float(value) for key, value in trainer.callback_metrics.items()},
        "found": {(one.code, one.key, one.corrected) for one in findings},
        "steps": module.steps,
        "held": module.mean.update_count,
    }


def values(pools: Mapping[int, Pool], world: int, program: str, mode: str) -> list[dict[str, Any]]:
    outcomes = pools[world].run(f"{__name__}:evaluate", program=program, mode=mode)
    assert all(outcome.ok for outcome in outcomes), "\n".join(map(str, outcomes))
    return [outcome.value for outcome in outcomes]


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
@pytest.mark.parametrize("program", ["even", "padded"])
def test_each_dataloader_has_the_number_of_its_own_samples(pools: Mapping[int, Pool], program: str, world: int) -> None:
    plain, warned, corrected = (values(pools, world, program, mode) for mode in ("none", "warn", "correct"))
    wanted = expected({"even": Shared, "padded": Padded}[program])
    for rank in range(world):
        assert warned[rank]["shown"] == plain[rank]["shown"]
        shown = corrected[rank]["shown"]
        if program == "even":  # what is logged in the hook, over both dataloaders, stays as it is
            assert shown.pop("all") == pytest.approx(plain[rank]["shown"]["all"])
            assert {(code, key) for code, key, _ in warned[rank]["found"]} == {("LRG404", key) for key in KEYS}
        shown.pop("all", None)
        assert shown == pytest.approx(wanted)
        assert {("LRG404", key, True) for key in KEYS} <= corrected[rank]["found"]
        assert corrected[rank]["steps"] == plain[rank]["steps"]
        assert corrected[rank]["held"] == plain[rank]["held"]


# --- stages -----------------------------------------------------------------------------------------------------


class OfTwoStages(LightningModule):
    """One metric for training and validation."""

    def __init__(self) -> None:
        super().__init__()
        self.layer, self.mean = nn.Linear(1, 1), MeanMetric()

    def train_dataloader(self) -> Any:
        return DataLoader(FIRST, batch_size=3)

    def val_dataloader(self) -> Any:
        return DataLoader(SECOND[:12], batch_size=3)

    def training_step(self, batch: Tensor, batch_idx: int) -> Tensor:
        self.mean.update(SCORES[batch])
        return self.layer(SCORES[batch, None]).sum()

    def validation_step(self, batch: Tensor, batch_idx: int) -> None:
        self.mean.update(SCORES[batch])
        self.log("val_mean", self.mean)

    def configure_optimizers(self) -> Any:
        return torch.optim.SGD(self.parameters(), lr=0.0)


def fit(mode: str) -> dict[str, Any]:
    guard = guards(mode, {"log_findings": False})
    with recorded_warnings():
        trainer = make_trainer(guard, Recorder(), max_epochs=1, num_sanity_val_steps=0)
        trainer.fit(OfTwoStages())
    findings = {(one.code, one.key, one.corrected) for each in guard for one in each.findings if one.severity != "note"}
    return {"mean": float(trainer.callback_metrics["val_mean"]), "found": findings}


@pytest.mark.parametrize("world", [1, 2])
def test_the_validation_has_the_number_of_its_own_samples(pools: Mapping[int, Pool], world: int) -> None:
    for mode in ("none", "correct"):
        outcomes = pools[world].run(f"{__name__}:fit", mode=mode)
        assert all(outcome.ok for outcome in outcomes), "\n".join(map(str, outcomes))
        for value in (outcome.value for outcome in outcomes):
            is_of_validation = value["mean"] == pytest.approx(float(SCORES[SECOND[:12]].mean()))
            assert is_of_validation == (mode == "correct")
            assert value["found"] == (set() if mode == "none" else {("LRG404", "val_mean", True)})
