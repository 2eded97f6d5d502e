"""A corpus in batches of as many documents as there are topics: ids look like an arange over the batch, and are not.

Kind: compute() at the end of the epoch
"""

from collections.abc import Callable

import torch
from lightning.pytorch import LightningModule, Trainer
from torch.utils.data import DataLoader
from torchmetrics.retrieval import RetrievalRecall

from ..data import TOPICS, Batch, corpus, topics
from ..models import DualEncoder


class CorpusSearch(LightningModule):
    def __init__(self) -> None:
        super().__init__()
        self.model = DualEncoder()
        self.recall = RetrievalRecall(top_k=5)
        self.register_buffer("topics", topics())

    def test_step(self, batch: Batch, batch_idx: int) -> None:
        scores = self.model.similarity(batch["document"], self.topics)
        topic_ids = torch.arange(TOPICS).expand_as(scores)
        self.recall.update(scores, batch["relevant"], indexes=topic_ids)

    def on_test_epoch_end(self) -> None:
        self.log("test_recall@5", self.recall.compute())
        self.recall.reset()


def main(make_trainer: Callable[..., Trainer]) -> None:
    make_trainer().test(CorpusSearch(), DataLoader(corpus(40), batch_size=TOPICS), verbose=False)
