"""A fixed set of topics against a corpus that comes in batches: every batch holds every topic id again.

Kind: metric object in the step
"""

from collections.abc import Callable

import torch
from lightning.pytorch import LightningModule, Trainer
from torch.utils.data import DataLoader
from torchmetrics.retrieval import RetrievalMAP, RetrievalPrecision

from ..data import TOPICS, Batch, corpus, topics
from ..models import DualEncoder


class CorpusSearch(LightningModule):
    def __init__(self) -> None:
        super().__init__()
        self.model = DualEncoder()
        self.map = RetrievalMAP(top_k=10)
        self.precision = RetrievalPrecision(top_k=5)
        self.register_buffer("topics", topics())

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        scores = self.model.similarity(self.topics, batch["document"])
        ids = torch.arange(TOPICS)[:, None].expand_as(scores)
        for metric in (self.map, self.precision):
            metric.update(scores, batch["relevant"].T, indexes=ids)
        self.log("val_map@10", self.map)
        self.log("val_p@5", self.precision)

    def val_dataloader(self) -> DataLoader[Batch]:
        return DataLoader(corpus(42), batch_size=6)


def main(make_trainer: Callable[..., Trainer]) -> None:
    make_trainer().validate(CorpusSearch(), verbose=False)
