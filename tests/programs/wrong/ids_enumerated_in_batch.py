"""Each question is an update of its own, and the step numbers the questions of a batch from zero.

Kind: colliding ids
Right form: one_update_a_question
"""

from collections.abc import Callable

import torch
from lightning.pytorch import LightningModule, Trainer
from torch.utils.data import DataLoader
from torchmetrics.retrieval import RetrievalMRR

from ..data import Batch, passages
from ..models import CrossEncoder


class Reranker(LightningModule):
    def __init__(self) -> None:
        super().__init__()
        self.model = CrossEncoder()
        self.mrr = RetrievalMRR()

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        scores = self.model(batch["question"], batch["passages"])
        for index, (row, labels) in enumerate(zip(scores, batch["labels"], strict=True)):
            self.mrr.update(row, labels, indexes=torch.full_like(labels, index))  # lint: LRG301
        self.log("val_mrr", self.mrr)  # expect: LRG301

    def val_dataloader(self) -> DataLoader[Batch]:
        return DataLoader(passages(22), batch_size=4)


def main(make_trainer: Callable[..., Trainer]) -> None:
    make_trainer().validate(Reranker(), verbose=False)
