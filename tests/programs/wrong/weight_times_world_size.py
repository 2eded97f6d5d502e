"""The batch size of the configuration times the number of devices, as answers to torchmetrics #2852 advise.

Kind: depends on pool or weight
Right form: functional_over_queries
"""

from collections.abc import Callable

import torch
from lightning.pytorch import LightningModule, Trainer
from torch.utils.data import DataLoader
from torchmetrics.functional.retrieval import retrieval_reciprocal_rank

from ..data import Batch, passages
from ..models import CrossEncoder


class AnswerSelection(LightningModule):
    def __init__(self, batch_size: int = 4) -> None:
        super().__init__()
        self.batch_size = batch_size
        self.model = CrossEncoder()

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        scores = self.model(batch["question"], batch["passages"])
        lists = zip(scores, batch["labels"], strict=True)
        mrr = torch.stack([retrieval_reciprocal_rank(score, label) for score, label in lists]).mean()
        global_batch = self.batch_size * self.trainer.world_size
        self.log("val_mrr", mrr, batch_size=global_batch, sync_dist=True)  # expect: LRG101@2 LRG102@1  # lint: LRG101

    def val_dataloader(self) -> DataLoader[Batch]:
        return DataLoader(passages(22), batch_size=self.batch_size)


def main(make_trainer: Callable[..., Trainer]) -> None:
    make_trainer().validate(AnswerSelection(), verbose=False)
