"""41 documents of a corpus on two devices: the sampler repeats one, which is a row of every topic.

Kind: one for each other rule
"""

from collections.abc import Callable

import torch
from lightning.pytorch import LightningModule, Trainer
from torch.utils.data import DataLoader
from torchmetrics.retrieval import RetrievalMAP

from ..data import TOPICS, Batch, corpus, topics
from ..models import DualEncoder


class CorpusSearch(LightningModule):
    def __init__(self) -> None:
        super().__init__()
        self.model = DualEncoder()
        self.map = RetrievalMAP()
        self.register_buffer("topics", topics())

    def test_step(self, batch: Batch, batch_idx: int) -> None:
        scores = self.model.similarity(batch["document"], self.topics)
        self.map.update(scores, batch["relevant"], indexes=torch.arange(TOPICS).expand_as(scores))
        self.log("test_map", self.map)  # expect: LRG403@2


def main(make_trainer: Callable[..., Trainer]) -> None:
    make_trainer().test(CorpusSearch(), DataLoader(corpus(41), batch_size=6), verbose=False)
