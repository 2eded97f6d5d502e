"""In-batch negatives in training: loss and accuracy of the step are each rank's own, as everybody logs them.

Kind: metrics of the training step
Own: train_loss train_in_batch_acc
"""

from collections.abc import Callable

import torch
from lightning.pytorch import LightningModule, Trainer
from torch import Tensor
from torch.nn import functional
from torch.utils.data import DataLoader
from torchmetrics.classification import MulticlassAccuracy

from ..data import Batch, pairs
from ..models import DualEncoder


class InBatchNegatives(LightningModule):
    def __init__(self) -> None:
        super().__init__()
        self.model = DualEncoder()
        self.accuracy = MulticlassAccuracy(num_classes=4)

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        logits = self.model.similarity(batch["image"], batch["text"]) / 0.07
        labels = torch.arange(len(logits))
        loss = functional.cross_entropy(logits, labels)
        self.log("train_loss", loss, prog_bar=True)
        self.log("train_in_batch_acc", self.accuracy(logits, labels))
        self.log("lr", self.optimizers().param_groups[0]["lr"])
        return loss

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.1)


def main(make_trainer: Callable[..., Trainer]) -> None:
    make_trainer(max_epochs=2).fit(InBatchNegatives(), DataLoader(pairs(24), batch_size=4))
