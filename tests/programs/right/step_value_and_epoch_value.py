"""forward() in the step: its value for the step alone, and compute() of the same metric for the epoch.

Kind: compute() at the end of the epoch
"""

from collections.abc import Callable

from lightning.pytorch import LightningModule, Trainer
from torch.utils.data import DataLoader
from torchmetrics.retrieval import RetrievalRecall

from ..data import Batch, sessions
from ..models import NextItem


class SessionModel(LightningModule):
    def __init__(self) -> None:
        super().__init__()
        self.model = NextItem()
        self.recall = RetrievalRecall(top_k=3)

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        scores = self.model(batch["history"], batch["candidates"])
        target = batch["candidates"] == batch["next_item"][:, None]
        value = self.recall(scores, target, indexes=batch["user"][:, None].expand_as(scores))
        self.log("val_recall_step", value, on_step=True, on_epoch=False)

    def on_validation_epoch_end(self) -> None:
        self.log("val_recall_epoch", self.recall.compute())
        self.recall.reset()

    def val_dataloader(self) -> DataLoader[Batch]:
        return DataLoader(sessions(22), batch_size=4)


def main(make_trainer: Callable[..., Trainer]) -> None:
    make_trainer().validate(SessionModel(), verbose=False)
