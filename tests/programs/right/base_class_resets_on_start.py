"""A retriever whose base class resets every metric in the start hook, so that the end hook has no reset.

Kind: compute() at the end of the epoch
"""

from collections.abc import Callable

import torch
from lightning.pytorch import LightningModule, Trainer
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.data import DataLoader
from torchmetrics.retrieval import RetrievalMRR, RetrievalRPrecision

from ..data import Batch, passages
from ..models import DualEncoder


class RetrievalModule(LightningModule):
    """Metrics of the subclasses stand in `val_metrics`."""

    val_metrics: nn.ModuleDict

    def on_validation_epoch_start(self) -> None:
        for metric in self.val_metrics.values():
            metric.reset()

    def on_validation_epoch_end(self) -> None:
        for name, metric in self.val_metrics.items():
            self.log(f"val/{name}", metric.compute(), sync_dist=False)


class QuestionAnswering(RetrievalModule):
    def __init__(self) -> None:
        super().__init__()
        self.model = DualEncoder()
        self.val_metrics = nn.ModuleDict({"mrr": RetrievalMRR(), "r-precision": RetrievalRPrecision()})

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        scores = self.model(batch["question"], batch["passages"])
        return functional.mse_loss(scores, batch["labels"].float())

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        scores = self.model(batch["question"], batch["passages"])
        for metric in self.val_metrics.values():
            metric.update(scores, batch["labels"], indexes=batch["question_id"][:, None].expand_as(scores))

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=2.0)


def main(make_trainer: Callable[..., Trainer]) -> None:
    trainer = make_trainer(max_epochs=2)
    size = 12 // trainer.world_size
    trainer.fit(QuestionAnswering(), DataLoader(passages(24), size), DataLoader(passages(22), size))
