"""A dense retriever whose ids are an arange over the batch, while the metric is logged as an object.

Kind: colliding ids
Right form: dense_retriever_compute_at_end
"""

from collections.abc import Callable

import torch
from lightning.pytorch import LightningModule, Trainer
from torch.utils.data import DataLoader
from torchmetrics.retrieval import RetrievalMRR, RetrievalRecall

from ..data import Batch, passages
from ..models import DualEncoder


class DenseRetriever(LightningModule):
    def __init__(self) -> None:
        super().__init__()
        self.model = DualEncoder()
        self.recall = RetrievalRecall(top_k=2)
        self.mrr = RetrievalMRR()

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        scores = self.model(batch["question"], batch["passages"])
        indexes = torch.arange(scores.shape[0]).unsqueeze(1).expand(scores.shape)
        self.recall(scores, batch["labels"], indexes=indexes)  # lint: LRG301
        self.mrr(scores, batch["labels"], indexes=indexes)  # lint: LRG301
        self.log("val_recall@2", self.recall, on_epoch=True)  # expect: LRG301
        self.log("val_mrr", self.mrr, on_epoch=True)  # expect: LRG301

    def val_dataloader(self) -> DataLoader[Batch]:
        return DataLoader(passages(22), batch_size=4)


def main(make_trainer: Callable[..., Trainer]) -> None:
    make_trainer().validate(DenseRetriever(), verbose=False)
