"""An accuracy for training and one for validation.

Kind: metrics of the training step
"""

from collections.abc import Callable

import torch
from lightning.pytorch import LightningModule, Trainer
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.data import DataLoader
from torchmetrics.classification import MulticlassAccuracy

from ..data import WIDTH, Batch, passages


class Classifier(LightningModule):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(WIDTH, 3)
        self.accuracy, self.train_accuracy = (MulticlassAccuracy(3, average="micro") for _ in range(2))

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        logits, labels = self.layer(batch["question"]), batch["question_id"] % 3
        self.train_accuracy.update(logits, labels)
        self.log("train_accuracy", self.train_accuracy, on_step=False, on_epoch=True)
        return functional.cross_entropy(logits, labels)

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        logits, labels = self.layer(batch["question"]), batch["question_id"] // 2 % 3
        self.accuracy.update(logits, labels)
        self.log("val_accuracy", self.accuracy)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.0)

    def train_dataloader(self) -> DataLoader[Batch]:
        return DataLoader(passages(24), batch_size=12 // self.trainer.world_size)

    def val_dataloader(self) -> DataLoader[Batch]:
        return DataLoader(passages(16), batch_size=4)


def main(make_trainer: Callable[..., Trainer]) -> None:
    make_trainer(max_epochs=1, num_sanity_val_steps=0).fit(Classifier())
