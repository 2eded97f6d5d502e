"""A re-ranker with ids 0, 1, 2, ... in every batch, and compute() at the end of the epoch.

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
        indexes = torch.arange(len(scores)).repeat_interleave(scores.shape[1])
        self.mrr.update(scores.flatten(), batch["labels"].flatten(), indexes=indexes)  # lint: LRG301

    def on_validation_epoch_end(self) -> None:
        self.log("val_mrr", self.mrr.compute(), prog_bar=True)  # expect: LRG301
        self.mrr.reset()

    def val_dataloader(self) -> DataLoader[Batch]:
        return DataLoader(passages(20), batch_size=3)


def main(make_trainer: Callable[..., Trainer]) -> None:
    make_trainer().validate(CodeSearch(), verbose=False)
