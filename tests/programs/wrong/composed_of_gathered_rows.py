"""F1 at a cut, composed of two metrics that get the rows of all devices, which torchmetrics gathers again.

Kind: gathered twice
Right form: composed_metric
"""

from collections.abc import Callable

from lightning.pytorch import LightningModule, Trainer
from torch.utils.data import DataLoader
from torchmetrics.retrieval import RetrievalPrecision, RetrievalRecall

from ..data import Batch, clicks
from ..models import Recommender


class TopItems(LightningModule):
    def __init__(self) -> None:
        super().__init__()
        self.model = Recommender()
        self.precision = RetrievalPrecision(top_k=2)
        self.recall = RetrievalRecall(top_k=2)
        self.f1 = 2 * self.precision * self.recall / (self.precision + self.recall)

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        scores = self.model(batch["user"], batch["item"])
        rows = [self.all_gather(part).reshape(-1) for part in (scores, batch["clicked"], batch["user"])]
        self.precision.update(rows[0], rows[1], indexes=rows[2])  # lint: LRG201
        self.recall.update(rows[0], rows[1], indexes=rows[2])  # lint: LRG201

    def on_validation_epoch_end(self) -> None:
        self.log("val_f1@2", self.f1.compute())  # expect: LRG201@2
        self.log("val_p@2", self.precision.compute())  # expect: LRG201@2
        self.precision.reset()
        self.recall.reset()

    def val_dataloader(self) -> DataLoader[Batch]:
        return DataLoader(clicks(12), batch_size=12)


def main(make_trainer: Callable[..., Trainer]) -> None:
    make_trainer().validate(TopItems(), verbose=False)
