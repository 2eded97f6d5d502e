"""Wrappers of torchmetrics around classification metrics, computed at the end of the epoch.

Kind: no retrieval
"""

from collections.abc import Callable

from lightning.pytorch import LightningModule, Trainer
from torch import nn
from torch.utils.data import DataLoader
from torchmetrics.classification import MulticlassAccuracy, MulticlassAUROC
from torchmetrics.wrappers import ClasswiseWrapper, MinMaxMetric

from ..data import WIDTH, Batch, pictures


class Classifier(LightningModule):
    def __init__(self) -> None:
        super().__init__()
        self.model = nn.Linear(WIDTH, 3)
        self.per_class = ClasswiseWrapper(MulticlassAccuracy(num_classes=3, average=None), labels=["cat", "dog", "owl"])
        self.range = MinMaxMetric(MulticlassAccuracy(num_classes=3))
        self.auroc = MulticlassAUROC(num_classes=3)

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        logits = self.model(batch["x"])
        for metric in (self.per_class, self.range, self.auroc):
            metric.update(logits, batch["y"])

    def on_validation_epoch_end(self) -> None:
        self.log_dict(self.per_class.compute())
        self.log_dict({f"accuracy_{name}": value for name, value in self.range.compute().items()})
        self.log("auroc", self.auroc.compute(), sync_dist=True)  # expect: note:LRG202@2
        for metric in (self.per_class, self.range, self.auroc):
            metric.reset()


def main(make_trainer: Callable[..., Trainer]) -> None:
    make_trainer().validate(Classifier(), DataLoader(pictures(22), batch_size=4), verbose=False)
