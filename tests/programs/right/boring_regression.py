"""Lightning's boring model: a regression that logs its losses.

Kind: no retrieval
Own: train_loss train_loss_epoch
"""

from collections.abc import Callable

import torch
from lightning.pytorch import LightningModule, Trainer
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.data import DataLoader

from ..data import WIDTH, Batch, series


class BoringModel(LightningModule):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(WIDTH, 1)

    def loss(self, batch: Batch) -> Tensor:
        return functional.mse_loss(self.layer(batch["x"]).squeeze(-1), batch["y"])

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        loss = self.loss(batch)
        self.log("train_loss", loss, on_step=True, on_epoch=True, prog_bar=True)
        return loss

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        self.log("val_loss", self.loss(batch), prog_bar=True, sync_dist=True)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.01)


def main(make_trainer: Callable[..., Trainer]) -> None:
    trainer = make_trainer(max_epochs=2)
    loaders = [DataLoader(series(size), batch_size=12 // trainer.world_size) for size in (24, 22)]
    trainer.fit(BoringModel(), *loaders)
