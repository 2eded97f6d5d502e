"""A retrieval metric that training and validation share: each stage has the number of its own rows."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
import torch
from lightning.pytorch import LightningModule
from torch import Tensor, nn
from torch.utils.data import DataLoader
from torchmetrics import MetricCollection
from torchmetrics.retrieval import RetrievalMRR, RetrievalRecall

from .harness import Pool
from .ranks import Shown, on_ranks

pytestmark = pytest.mark.timeout(60)

SAMPLES, CANDIDATES = 28, 5
SCORES = torch.rand(SAMPLES, CANDIDATES, generator=torch.Generator().manual_seed(3)) + 0.01
FIT = {"method": "fit", "max_epochs": 1, "num_sanity_val_steps": 0, "log_every_n_steps": 1}
KEYS = {"train_mrr", "train_recall"}


def metrics() -> MetricCollection:
    return MetricCollection({"mrr": RetrievalMRR(), "recall": RetrievalRecall(top_k=2)})


class ByHand(LightningModule):
    """The hooks of the validation reset the metrics, so that nothing is mixed and the training lacks rows."""

    def __init__(self) -> None:
        super().__init__()
        self.layer, self.metrics = nn.Linear(1, 1), metrics()
        self.trained: list[int] = []

    def train_dataloader(self) -> DataLoader[int]:
        return DataLoader([*range(SAMPLES)], batch_size=2)

    def val_dataloader(self) -> Any:
        return DataLoader([*range(8)], batch_size=2)

    def training_step(self, batch: Tensor, batch_idx: int) -> Tensor:
        self.trained += batch.tolist()
        feed(self.metrics, batch, 0)
        self.log_dict({f"train_{name}": one for name, one in self.metrics.items()}, on_step=False, on_epoch=True)
        loss: Tensor = self.layer(SCORES[batch, :1]).sum()
        return loss

    def on_validation_epoch_start(self) -> None:
        self.metrics.reset()

    def validation_step(self, batch: Tensor, batch_idx: int) -> None:
        feed(self.metrics, batch, 1)

    def on_validation_epoch_end(self) -> None:
        self.log_dict({f"val_{name}": value for name, value in self.metrics.compute().items()})
        self.metrics.reset()

    def configure_optimizers(self) -> Any:
        return torch.optim.SGD(self.parameters(), lr=0.0)


class Restarting(ByHand):
    """The training itself forgets what it held before its last batches."""

    def training_step(self, batch: Tensor, batch_idx: int) -> Tensor:
        if batch_idx == self.trainer.num_training_batches - 2:
            self.metrics.reset()
            self.trained.clear()
        return super().training_step(batch, batch_idx)


class Window(Restarting):
    """Right: it has no validation, and shows its last batches."""

    def val_dataloader(self) -> Any:
        return []


def feed(fed: MetricCollection, index: Tensor, right: int) -> None:
    relevant = torch.zeros(len(index), CANDIDATES, dtype=torch.long)
    relevant[:, right] = 1
    ids = index.repeat_interleave(CANDIDATES) + SAMPLES * right
    fed.update(SCORES[index].flatten(), relevant.flatten(), indexes=ids)


def expected(shown: list[Shown]) -> dict[str, float]:
    """What metrics of their own give the training."""
    own = metrics()
    feed(own, torch.tensor([sample for one in shown for sample in one.kept["trained"]]), 0)
    return {f"train_{name}": float(value) for name, value in own.compute().items()}


def of_training(shown: Shown) -> dict[str, float]:
    return {name: value for name, value in shown.numbers.items() if name in KEYS}


@pytest.mark.parametrize("world", [1, 2])
def test_the_training_has_the_rows_that_another_stage_has_reset(pools: Mapping[int, Pool], world: int) -> None:
    # a few batches of the training come after the last validation
    plain, warned, corrected = (
        on_ranks(pools[world], ByHand, mode, ["trained"], **FIT, val_check_interval=5)
        for mode in ("none", "warn", "correct")
    )
    numbers = expected(corrected)
    for one in plain:
        assert of_training(one) != pytest.approx(numbers)
    for one, before in zip(warned, plain, strict=True):
        assert one.numbers == before.numbers
        assert {(found.code, found.key, found.corrected) for found in one.found} == {
            ("LRG404", key, False) for key in KEYS
        }
        assert all("which another stage has reset" in found.message for found in one.found)
    for one, before in zip(corrected, plain, strict=True):
        assert one.numbers == pytest.approx({**before.numbers, **numbers})
        assert {(found.code, found.key, found.corrected) for found in one.found} == {
            ("LRG404", key, True) for key in KEYS
        }


@pytest.mark.parametrize("world", [1, 2])
@pytest.mark.parametrize(("program", "interval"), [(Restarting, 4), (Window, 1.0)])
def test_what_the_training_has_reset_itself_is_forgotten(
    pools: Mapping[int, Pool], program: type[ByHand], interval: float, world: int
) -> None:
    for mode in ("none", "warn", "correct"):
        shown = on_ranks(pools[world], program, mode, ["trained"], **FIT, val_check_interval=interval)
        numbers = expected(shown)
        for one in shown:
            assert of_training(one) == pytest.approx(numbers)
            assert not one.found
