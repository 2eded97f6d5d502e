"""A split of one's own that repeats no sample: 12 and 11 samples, and Lightning floors the mean of the batch sizes.

Kind: one for each other rule
"""

from collections.abc import Callable

import torch
from lightning.pytorch import LightningModule, Trainer
from torch import nn
from torch.nn import functional
from torch.utils.data import DataLoader, Subset
from torchmetrics import MeanAbsoluteError

from ..data import WIDTH, Batch, series


class Regressor(LightningModule):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(WIDTH, 1)
        self.mae = MeanAbsoluteError()

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        predicted = self.layer(batch["x"]).squeeze(-1)
        self.mae.update(predicted, batch["y"])
        self.log("val_mae", self.mae)
        self.log("val_loss", functional.mse_loss(predicted, batch["y"]), sync_dist=True)  # expect: LRG104@2

    def val_dataloader(self) -> DataLoader[Batch]:
        samples = series(23)
        own = torch.arange(self.global_rank, len(samples), self.trainer.world_size)
        return DataLoader(Subset(samples, own.tolist()), batch_size=4)


def main(make_trainer: Callable[..., Trainer]) -> None:
    make_trainer(use_distributed_sampler=False).validate(Regressor(), verbose=False)
