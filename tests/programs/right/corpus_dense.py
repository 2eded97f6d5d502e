"""A corpus in batches of as many documents as topics, each topic with an answer in every batch, ids made in the step.

Kind: metric object in the step
"""

from collections.abc import Callable

import torch
from lightning.pytorch import LightningModule, Trainer
from torch.utils.data import DataLoader
from torchmetrics.retrieval import RetrievalMAP

from ..data import TOPICS, Batch, Columns, corpus, topics
from ..models import DualEncoder


def dense_corpus(documents: int) -> Columns:
    """Every second document answers its topic, and the next topic is that of the document after the next."""
    columns = corpus(documents).columns
    index = torch.arange(documents)
    relevant = torch.zeros_like(columns["relevant"])
    relevant[index, (3 * index + index // TOPICS) % TOPICS] = 1
    return Columns(**{**columns, "relevant": relevant})


class CorpusSearch(LightningModule):
    def __init__(self) -> None:
        super().__init__()
        self.model = DualEncoder()
        self.map = RetrievalMAP()
        self.register_buffer("topics", topics())

    def test_step(self, batch: Batch, batch_idx: int) -> None:
        scores = self.model.similarity(batch["document"], self.topics).T
        topic_ids = torch.arange(TOPICS)[:, None].expand_as(scores)
        self.map.update(scores, batch["relevant"].T, indexes=topic_ids)
        self.log("test_map", self.map)


def main(make_trainer: Callable[..., Trainer]) -> None:
    make_trainer().test(CorpusSearch(), DataLoader(dense_corpus(40), batch_size=TOPICS), verbose=False)
