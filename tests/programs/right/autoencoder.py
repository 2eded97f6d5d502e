"""Lightning's autoencoder: a training loss without sync_dist, a validation loss with it.

Kind: no retrieval
Own: train_loss
"""

from collections.abc import Callable

import torch
from lightning.pytorch import LightningModule, Trainer
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.data import DataLoader

from ..data import WIDTH, Batch, pictures


class LitAutoEncoder(LightningModule):
    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.Sequential(nn.Linear(WIDTH, 4), nn.ReLU(), nn.Linear(4, 3))
        self.decoder = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, WIDTH))

    def step(self, batch: Batch, stage: str, sync: bool) -> Tensor:
        loss = functional.mse_loss(self.decoder(self.encoder(batch["x"])), batch["x"])
        self.log(f"{stage}_loss", loss, sync_dist=sync)
        return loss

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        return self.step(batch, "train", sync=False)

    def validation_step(self, batch: Batch, batch_idx: int) -> Tensor:
        return self.step(batch, "val", sync=True)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.Adam(self.parameters(), lr=1e-3)


def main(make_trainer: Callable[..., Trainer]) -> None:
    trainer = make_trainer(max_epochs=2)
    size = 8 // trainer.world_size
    trainer.fit(LitAutoEncoder(), DataLoader(pictures(24), size), DataLoader(pictures(20), size))
