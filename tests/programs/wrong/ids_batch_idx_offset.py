"""Ids from batch_idx times the batch size, which number the queries of one rank only.

Kind: colliding ids
"""

from collections.abc import Callable

import torch
from lightning.pytorch import LightningModule, Trainer
from torch.utils.data import DataLoader
from torchmetrics.retrieval import RetrievalMAP, RetrievalRecall

from ..data import Batch, passages
from ..models import DualEncoder


class ImageTextRetrieval(LightningModule):
    batch_size = 4

    def __init__(self) -> None:
        super().__init__()
        self.model = DualEncoder()
        self.val_map, self.val_recall = RetrievalMAP(), RetrievalRecall(top_k=1)

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        scores = self.model(batch["question"], batch["passages"])
        first = batch_idx * self.batch_size
        ids = torch.arange(first, first + len(scores))[:, None].expand_as(scores)
        self.val_map.update(scores, batch["labels"], indexes=ids)  # lint: LRG301
        self.val_recall.update(scores, batch["labels"], indexes=ids)  # lint: LRG301
        self.log("val/map", self.val_map)  # expect: LRG301@2
        self.log("val/recall@1", self.val_recall)  # expect: LRG301@2

    def val_dataloader(self) -> DataLoader[Batch]:
        return DataLoader(passages(22), batch_size=self.batch_size)


def main(make_trainer: Callable[..., Trainer]) -> None:
    make_trainer().validate(ImageTextRetrieval(), verbose=False)
