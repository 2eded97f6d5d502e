"""A classifier that averages the macro accuracy of batches, in which the classes are not equally frequent.

Kind: averages what may not be averaged
Right form: macro_accuracy
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

    def test_step(self, batch: Batch, batch_idx: int) -> None:
        acc = self.test_acc(self.model(batch["x"]), batch["y"])
        self.log("test_acc", acc, on_epoch=True, sync_dist=True)  # expect: LRG302  # lint: LRG302


def main(make_trainer: Callable[..., Trainer]) -> None:
    make_trainer().test(ImageClassifier(), DataLoader(pictures(22), batch_size=4), verbose=False)
