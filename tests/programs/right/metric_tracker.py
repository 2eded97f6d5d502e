"""A MetricTracker over epochs, as torchmetrics documents it.

Kind: compute() at the end of the epoch
"""

from collections.abc import Callable

import torch
from lightning.pytorch import LightningModule, Trainer
from torch import Tensor
from torch.nn import functional
from torch.utils.data import DataLoader
from torchmetrics.retrieval import RetrievalMRR
from torchmetrics.wrappers import MetricTracker

from ..data import Batch, passages
from ..models import DualEncoder


class TrackedRetriever(LightningModule):
    def __init__(self) -> None:
        super().__init__()
        self.model = DualEncoder()
        self.tracker = MetricTracker(RetrievalMRR(), maximize=True)

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        scores = self.model(batch["question"], batch["passages"])
        return functional.mse_loss(scores, batch["labels"].float())

    def on_validation_epoch_start(self) -> None:
        self.tracker.increment()

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        scores = self.model(batch["question"], batch["passages"])
        self.tracker.update(scores, batch["labels"], indexes=batch["question_id"][:, None].expand_as(scores))

    def on_validation_epoch_end(self) -> None:
        self.log("val_mrr", self.tracker.compute())

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.5)


def main(make_trainer: Callable[..., Trainer]) -> None:
    trainer = make_trainer(max_epochs=2)
    size = 12 // trainer.world_size
    trainer.fit(TrackedRetriever(), DataLoader(passages(24), size), DataLoader(passages(22), size))
