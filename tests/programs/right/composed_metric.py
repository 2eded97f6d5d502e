"""F1 at a cut, composed of precision and recall by arithmetic of torchmetrics.

Kind: compute() at the end of the epoch
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
        self.precision.update(scores, batch["clicked"], indexes=batch["user"])
        self.recall.update(scores, batch["clicked"], indexes=batch["user"])

    def on_validation_epoch_end(self) -> None:
        self.log("val_f1@2", self.f1.compute())
        self.log("val_p@2", self.precision.compute())
        self.precision.reset()
        self.recall.reset()

    def val_dataloader(self) -> DataLoader[Batch]:
        return DataLoader(clicks(12), batch_size=12)


def main(make_trainer: Callable[..., Trainer]) -> None:
    make_trainer().validate(TopItems(), verbose=False)
