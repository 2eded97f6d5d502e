"""MinMaxMetric around a retrieval metric, over two epochs.

Kind: compute() at the end of the epoch
"""

from collections.abc import Callable

import torch
from lightning.pytorch import LightningModule, Trainer
from torch import Tensor
from torch.nn import functional
from torch.utils.data import DataLoader
from torchmetrics.retrieval import RetrievalMRR
from torchmetrics.wrappers import MinMaxMetric

from ..data import Batch, passages
from ..models import DualEncoder


class BestSoFar(LightningModule):
    def __init__(self) -> None:
        super().__init__()
        self.model = DualEncoder()
        self.mrr = MinMaxMetric(RetrievalMRR())

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        scores = self.model(batch["question"], batch["passages"])
        return functional.mse_loss(scores, batch["labels"].float())

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        scores = self.model(batch["question"], batch["passages"])
        self.mrr.update(scores, batch["labels"], indexes=batch["question_id"][:, None].expand_as(scores))

    def on_validation_epoch_end(self) -> None:
        values = self.mrr.compute()
        self.log_dict({"val_mrr": values["raw"], "val_mrr_best": values["max"]})
        self.mrr._base_metric.reset()

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=2.0)


def main(make_trainer: Callable[..., Trainer]) -> None:
    trainer = make_trainer(max_epochs=2, num_sanity_val_steps=0)
    size = 12 // trainer.world_size
    trainer.fit(BestSoFar(), DataLoader(passages(24), size), DataLoader(passages(22), size))
