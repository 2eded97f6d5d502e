"""A classifier whose macro accuracy, and that of all samples, are logged as objects; forward() values are for the step.

Kind: no retrieval
"""

from collections.abc import Callable

from lightning.pytorch import LightningModule, Trainer
from torch import nn
from torch.utils.data import DataLoader
from torchmetrics.classification import MulticlassAccuracy

from ..data import WIDTH, Batch, pictures


class ImageClassifier(LightningModule):
    def __init__(self) -> None:
        super().__init__()
        self.model = nn.Linear(WIDTH, 3)
        self.test_acc = MulticlassAccuracy(num_classes=3)
        self.micro_acc = MulticlassAccuracy(num_classes=3, average="micro")

    def test_step(self, batch: Batch, batch_idx: int) -> None:
        logits = self.model(batch["x"])
        self.log("test_acc_of_batch_step", self.test_acc(logits, batch["y"]), on_step=True, on_epoch=False)
        self.log("test_acc", self.test_acc, on_epoch=True)
        self.log("test_micro", self.micro_acc(logits, batch["y"]), sync_dist=True)


def main(make_trainer: Callable[..., Trainer]) -> None:
    make_trainer().test(ImageClassifier(), DataLoader(pictures(22), batch_size=4), verbose=False)
