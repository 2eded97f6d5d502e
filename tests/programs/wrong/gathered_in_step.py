"""The program of torchmetrics #2852: embeddings are gathered in the step, and compute() gathers their rows again.

Kind: gathered twice
"""

from collections.abc import Callable

import torch
from lightning.pytorch import LightningModule, Trainer
from torch.utils.data import DataLoader
from torchmetrics.retrieval import RetrievalRecall

from ..data import Batch, pairs
from ..models import DualEncoder


class ClipModel(LightningModule):
    global_batch = 12

    def __init__(self) -> None:
        super().__init__()
        self.model = DualEncoder()

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        image = self.all_gather(self.model.encode_query(batch["image"])).flatten(0, -2)
        text = self.all_gather(self.model.encode_document(batch["text"])).flatten(0, -2)
        scores = image @ text.T
        recall = RetrievalRecall(top_k=3)
        ids = torch.arange(len(scores))[:, None].expand_as(scores)
        recall.update(scores, torch.eye(len(scores), dtype=torch.bool), indexes=ids)  # lint: LRG201
        n, r = len(batch["image"]) * self.trainer.world_size, recall.compute()  # lint: note:LRG207
        self.log("r@3", r, batch_size=n, sync_dist=True)  # expect: LRG201@2 note:LRG101@2 note:LRG207@2  # lint: LRG101

    def val_dataloader(self) -> DataLoader[Batch]:
        return DataLoader(pairs(36), batch_size=self.global_batch // self.trainer.world_size)


def main(make_trainer: Callable[..., Trainer]) -> None:
    make_trainer().validate(ClipModel(), verbose=False)
