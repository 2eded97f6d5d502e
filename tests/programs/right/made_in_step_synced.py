"""A metric made in the step that combines the ranks each time: slow, and right because ids are of the data set.

Kind: per-step value
"""

from collections.abc import Callable

from lightning.pytorch import LightningModule, Trainer
from torch.utils.data import DataLoader
from torchmetrics.retrieval import RetrievalHitRate

from ..data import Batch, sessions
from ..models import NextItem


class NextItemModel(LightningModule):
    def __init__(self) -> None:
        super().__init__()
        self.model = NextItem()

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        scores = self.model(batch["history"], batch["candidates"])
        target = batch["candidates"] == batch["next_item"][:, None]
        hit_rate = RetrievalHitRate(top_k=2)
        hit_rate.update(scores, target, indexes=batch["user"][:, None].expand_as(scores))
        self.log("val_hit@2", hit_rate.compute())  # expect: note:LRG207@2  # lint: note:LRG207

    def val_dataloader(self) -> DataLoader[Batch]:
        return DataLoader(sessions(22), batch_size=4)


def main(make_trainer: Callable[..., Trainer]) -> None:
    make_trainer().validate(NextItemModel(), verbose=False)
