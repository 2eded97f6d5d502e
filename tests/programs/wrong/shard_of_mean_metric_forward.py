"""Reciprocal ranks go through a MeanMetric, but the log call gets what its forward() returns.

Kind: rank 0's shard only
"""

from collections.abc import Callable

from lightning.pytorch import LightningModule, Trainer
from torch.utils.data import DataLoader
from torchmetrics import MeanMetric

from ..data import Batch, sessions
from ..models import NextItem


class NextItemModel(LightningModule):
    def __init__(self) -> None:
        super().__init__()
        self.model = NextItem()
        self.val_mrr = MeanMetric()

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        scores = self.model(batch["history"], batch["candidates"])
        is_next = batch["candidates"] == batch["next_item"][:, None]
        rank = (scores > scores[is_next][:, None]).sum(dim=1) + 1
        self.log("val_mrr", self.val_mrr(1.0 / rank), on_epoch=True)  # expect: LRG203@2  # lint: LRG203

    def val_dataloader(self) -> DataLoader[Batch]:
        return DataLoader(sessions(22), batch_size=4)


def main(make_trainer: Callable[..., Trainer]) -> None:
    make_trainer().validate(NextItemModel(), verbose=False)
