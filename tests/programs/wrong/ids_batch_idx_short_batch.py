"""Ids from batch_idx times the size of the batch at hand, which in the short last batch are those of an earlier one.

Kind: colliding ids
Right form: outputs_fed_at_end
"""

from collections.abc import Callable

import torch
from lightning.pytorch import LightningModule, Trainer
from torch.utils.data import DataLoader
from torchmetrics.retrieval import RetrievalMRR

from ..data import Batch, passages
from ..models import CrossEncoder


class CodeSearch(LightningModule):
    def __init__(self) -> None:
        super().__init__()
        self.model = CrossEncoder()
        self.mrr = RetrievalMRR()

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        scores = self.model(batch["question"], batch["passages"])
        n = len(scores)
        ids = torch.arange(n * batch_idx, n * (batch_idx + 1))[:, None].expand_as(scores)
        self.mrr.update(scores, batch["labels"], indexes=ids)  # lint: LRG301
        self.log("val_mrr", self.mrr)  # expect: LRG301

    def val_dataloader(self) -> DataLoader[Batch]:
        return DataLoader(passages(20), batch_size=3)


def main(make_trainer: Callable[..., Trainer]) -> None:
    make_trainer().validate(CodeSearch(), verbose=False)
