"""Validation four times an epoch and a sanity check before it; Lightning resets the logged metrics each time.

Kind: metric object in the step
"""

from collections.abc import Callable

import torch
from lightning.pytorch import LightningModule, Trainer
from torch import Tensor
from torch.nn import functional
from torch.utils.data import DataLoader
from torchmetrics.retrieval import RetrievalPrecision

from ..data import Batch, clicks
from ..models import Recommender


class ClickModel(LightningModule):
    def __init__(self) -> None:
        super().__init__()
        self.model = Recommender()
        self.precision = RetrievalPrecision(top_k=2, adaptive_k=True)

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        probability = self.model(batch["user"], batch["item"])
        return functional.binary_cross_entropy(probability, batch["clicked"].float())

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        probability = self.model(batch["user"], batch["item"])
        self.precision.update(probability, batch["clicked"], batch["user"])
        self.log("val_p@2", self.precision)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=1.0)


def main(make_trainer: Callable[..., Trainer]) -> None:
    trainer = make_trainer(max_epochs=1, val_check_interval=0.5)
    size = 24 // trainer.world_size
    trainer.fit(ClickModel(), DataLoader(clicks(16), size), DataLoader(clicks(12), size))
