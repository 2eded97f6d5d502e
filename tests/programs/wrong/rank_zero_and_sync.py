"""sync_dist=True together with rank_zero_only=True, which switches the reduction off without a word.

Kind: one for each other rule
"""

from collections.abc import Callable

import torch
from lightning.pytorch import LightningModule, Trainer
from torch.utils.data import DataLoader
from torchmetrics.functional.retrieval import retrieval_precision

from ..data import Batch, passages
from ..models import CrossEncoder


class Reranker(LightningModule):
    def __init__(self) -> None:
        super().__init__()
        self.model = CrossEncoder()

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        scores = self.model(batch["question"], batch["passages"])
        lists = zip(scores, batch["labels"], strict=True)
        precision = torch.stack([retrieval_precision(score, label, top_k=2) for score, label in lists]).mean()
        self.log("val_p@2", precision, sync_dist=True, rank_zero_only=True)  # expect: LRG204@2  # lint: LRG204

    def val_dataloader(self) -> DataLoader[Batch]:
        return DataLoader(passages(20), batch_size=4)


def main(make_trainer: Callable[..., Trainer]) -> None:
    make_trainer().validate(Reranker(), verbose=False)
