"""Lists of unequal length, filled up with candidates that score zero and are not relevant: they tie, harmlessly.

Kind: compute() at the end of the epoch
"""

from collections.abc import Callable

import torch
from lightning.pytorch import LightningModule, Trainer
from torch.utils.data import DataLoader
from torchmetrics.retrieval import RetrievalMAP, RetrievalMRR, RetrievalRecall

from ..data import Batch, passages
from ..models import CrossEncoder


class ListwiseReranker(LightningModule):
    def __init__(self) -> None:
        super().__init__()
        self.model = CrossEncoder()
        self.mrr, self.map, self.recall = RetrievalMRR(), RetrievalMAP(), RetrievalRecall(top_k=2)

    def test_step(self, batch: Batch, batch_idx: int) -> None:
        scores = self.model(batch["question"], batch["passages"])
        length = 3 + batch["question_id"] % 4
        real = torch.arange(scores.shape[1]) < length[:, None]
        scores, labels = scores.where(real, 0.0), batch["labels"].where(real, 0)
        labels[:, 0] = 1
        for metric in (self.mrr, self.map, self.recall):
            metric.update(scores, labels, indexes=batch["question_id"][:, None].expand_as(scores))

    def on_test_epoch_end(self) -> None:
        self.log("test_mrr", self.mrr.compute())
        self.log("test_map", self.map.compute())
        self.log("test_recall@2", self.recall.compute())


def main(make_trainer: Callable[..., Trainer]) -> None:
    make_trainer().test(ListwiseReranker(), DataLoader(passages(22), batch_size=4), verbose=False)
