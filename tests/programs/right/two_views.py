"""Two views of each sample: on two devices as many losses as the world size times the samples of the batch.

Kind: no retrieval
"""

from collections.abc import Callable

import torch
from lightning.pytorch import LightningModule, Trainer
from torch.utils.data import DataLoader

from ..data import Batch, pairs
from ..models import DualEncoder


class TwoViews(LightningModule):
    def __init__(self) -> None:
        super().__init__()
        self.model = DualEncoder()

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        views = torch.cat([self.model.encode_query(batch["image"]), self.model.encode_query(batch["text"])])
        self.log("val_norm", views.amax(dim=1).mean(), sync_dist=True, batch_size=len(views))  # expect: note:LRG101@2

    def val_dataloader(self) -> DataLoader[Batch]:
        return DataLoader(pairs(22), batch_size=4)


def main(make_trainer: Callable[..., Trainer]) -> None:
    make_trainer().validate(TwoViews(), verbose=False)
