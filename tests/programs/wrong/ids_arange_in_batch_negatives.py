"""A CLIP-like model that ranks each image's caption among those of its batch, with ids 0, 1, 2, ...

Kind: colliding ids
Pool: candidates are those of one rank's batch
"""

from collections.abc import Callable

import torch
from lightning.pytorch import LightningModule, Trainer
from torch.utils.data import DataLoader
from torchmetrics.retrieval import RetrievalRecall

from ..data import Batch, pairs
from ..models import DualEncoder


class Clip(LightningModule):
    def __init__(self) -> None:
        super().__init__()
        self.model = DualEncoder()
        self.i2t_recall = RetrievalRecall(top_k=1)

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        similarity = self.model.similarity(batch["image"], batch["text"])
        target = torch.eye(len(similarity), dtype=torch.bool)
        ids = torch.arange(len(similarity))[:, None].expand_as(similarity)
        self.i2t_recall(similarity, target, indexes=ids)  # lint: LRG301
        self.log("val_i2t_recall@1", self.i2t_recall, on_epoch=True, batch_size=len(ids))  # expect: LRG301

    def val_dataloader(self) -> DataLoader[Batch]:
        return DataLoader(pairs(36), batch_size=6)


def main(make_trainer: Callable[..., Trainer]) -> None:
    make_trainer().validate(Clip(), verbose=False)
