"""The value so far on the progress bar, which is no number of the epoch, and the metric itself for the epoch.

Kind: metrics of the training step
Own: train_mrr_so_far
"""

from collections.abc import Callable

import torch
from lightning.pytorch import LightningModule, Trainer
from torch import Tensor
from torch.nn import functional
from torch.utils.data import DataLoader
from torchmetrics.retrieval import RetrievalMRR

from ..data import Batch, passages
from ..models import DualEncoder


class WatchedRetriever(LightningModule):
    def __init__(self) -> None:
        super().__init__()
        self.model = DualEncoder()
        self.mrr = RetrievalMRR()

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        scores = self.model(batch["question"], batch["passages"])
        ids = batch["question_id"][:, None].expand_as(scores)
        self.mrr.update(scores.detach(), batch["labels"], indexes=ids)
        self.log("train_mrr_so_far", self.mrr.compute(), prog_bar=True)  # lint: note:LRG207
        return functional.mse_loss(scores, batch["labels"].float())

    def on_train_epoch_end(self) -> None:
        self.log("train_mrr", self.mrr.compute())  # expect: note:LRG207@2
        self.mrr.reset()

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.5)


def main(make_trainer: Callable[..., Trainer]) -> None:
    trainer = make_trainer(max_epochs=2)
    trainer.fit(WatchedRetriever(), DataLoader(passages(24), 12 // trainer.world_size))
