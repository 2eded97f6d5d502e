"""A metric made in the step with ids 0, 1, 2, ...: its compute() merges the queries of all ranks.

Kind: colliding ids
"""

from collections.abc import Callable

import torch
from lightning.pytorch import LightningModule, Trainer
from torch.utils.data import DataLoader
from torchmetrics.retrieval import RetrievalMRR

from ..data import Batch, passages
from ..models import DualEncoder


class TwoTowerSearch(LightningModule):
    def __init__(self) -> None:
        super().__init__()
        self.model = DualEncoder()

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        scores = self.model(batch["question"], batch["passages"])
        metric = RetrievalMRR()
        metric.update(scores, batch["labels"], torch.arange(len(scores))[:, None].expand_as(scores))  # lint: LRG301
        self.log("val_mrr", metric.compute(), sync_dist=True)  # expect: LRG301@2 note:LRG207@2  # lint: note:LRG207

    def val_dataloader(self) -> DataLoader[Batch]:
        return DataLoader(passages(20), batch_size=4)


def main(make_trainer: Callable[..., Trainer]) -> None:
    make_trainer().validate(TwoTowerSearch(), verbose=False)
