"""A function of torchmetrics for each query, averaged over the batch and logged as it is.

Kind: rank 0's shard only
"""

from collections.abc import Callable

import torch
from lightning.pytorch import LightningModule, Trainer
from torch.utils.data import DataLoader
from torchmetrics.functional.retrieval import retrieval_normalized_dcg

from ..data import Batch, passages
from ..models import CrossEncoder


class Reranker(LightningModule):
    def __init__(self) -> None:
        super().__init__()
        self.model = CrossEncoder()

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        scores = self.model(batch["question"], batch["passages"])
        lists = zip(scores, batch["labels"], strict=True)
        ndcg = torch.stack([retrieval_normalized_dcg(score, label) for score, label in lists])
        self.log("val_ndcg", ndcg.mean(), on_epoch=True, prog_bar=True)  # expect: LRG203@2  # lint: LRG203

    def val_dataloader(self) -> DataLoader[Batch]:
        return DataLoader(passages(20), batch_size=4)


def main(make_trainer: Callable[..., Trainer]) -> None:
    make_trainer().validate(Reranker(), verbose=False)
