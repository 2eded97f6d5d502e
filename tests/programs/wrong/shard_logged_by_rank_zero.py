"""A rank's own mean, logged with rank_zero_only=True to keep the logger quiet.

Kind: rank 0's shard only
Known miss: LRG203, because rank_zero_only=True is taken to say that the number of rank 0 is wanted
Stays: rank 0's number is what was asked for
"""

from collections.abc import Callable

import torch
from lightning.pytorch import LightningModule, Trainer
from torch.utils.data import DataLoader
from torchmetrics.functional.retrieval import retrieval_average_precision

from ..data import Batch, passages
from ..models import CrossEncoder


class PassageReranker(LightningModule):
    def __init__(self) -> None:
        super().__init__()
        self.model = CrossEncoder()

    def test_step(self, batch: Batch, batch_idx: int) -> None:
        scores = self.model(batch["question"], batch["passages"])
        lists = zip(scores, batch["labels"], strict=True)
        ap = torch.stack([retrieval_average_precision(score, label) for score, label in lists])
        self.log("test_map", ap.mean(), rank_zero_only=True)  # expect: LRG203@2  # lint: missed:LRG203


def main(make_trainer: Callable[..., Trainer]) -> None:
    make_trainer().test(PassageReranker(), DataLoader(passages(20), batch_size=4), verbose=False)
