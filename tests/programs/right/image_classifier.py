"""Lightning's classifier: accuracy as a metric in training, validation and test, and the losses.

Kind: no retrieval
"""

from collections.abc import Callable

import torch
from lightning.pytorch import LightningModule, Trainer
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.data import DataLoader
from torchmetrics.classification import MulticlassAccuracy

from ..data import WIDTH, Batch, pictures


class ImageClassifier(LightningModule):
    def __init__(self) -> None:
        super().__init__()
        self.model = nn.Linear(WIDTH, 3)
        self.train_acc = MulticlassAccuracy(num_classes=3)
        self.val_acc = MulticlassAccuracy(num_classes=3)
        self.test_acc = MulticlassAccuracy(num_classes=3, average="micro")

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        logits = self.model(batch["x"])
        self.train_acc(logits, batch["y"])
        self.log("train_acc", self.train_acc, on_step=True, on_epoch=True)
        return functional.cross_entropy(logits, batch["y"])

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        logits = self.model(batch["x"])
        self.val_acc.update(logits, batch["y"])
        self.log("val_loss", functional.cross_entropy(logits, batch["y"]), sync_dist=True, batch_size=len(logits))
        self.log("val_acc", self.val_acc, on_epoch=True, prog_bar=True)

    def test_step(self, batch: Batch, batch_idx: int) -> None:
        self.log("test_acc", self.test_acc(self.model(batch["x"]), batch["y"]), sync_dist=True)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.1)


def main(make_trainer: Callable[..., Trainer]) -> None:
    trainer, model = make_trainer(max_epochs=2), ImageClassifier()
    size = 12 // trainer.world_size
    trainer.fit(model, DataLoader(pictures(24), size), DataLoader(pictures(22), size))
    trainer.test(model, DataLoader(pictures(24), size), verbose=False)
