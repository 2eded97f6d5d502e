"""A retriever that ranks by hand and keeps the reciprocal ranks in a MeanMetric.

Kind: metric object in the step
"""

from collections.abc import Callable

from lightning.pytorch import LightningModule, Trainer
from torch.utils.data import DataLoader
from torchmetrics import MeanMetric

from ..data import Batch, sessions
from ..models import NextItem


class SessionRecommender(LightningModule):
    def __init__(self) -> None:
        super().__init__()
        self.model = NextItem()
        self.val_mrr = MeanMetric()
        self.val_hit = MeanMetric()

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        scores = self.model(batch["history"], batch["candidates"])
        is_next = batch["candidates"] == batch["next_item"][:, None]
        rank = (scores > scores[is_next][:, None]).sum(dim=1) + 1
        self.val_mrr.update(1.0 / rank)
        self.val_hit.update((rank <= 3).float())
        self.log("val_mrr", self.val_mrr, on_epoch=True)

    def on_validation_epoch_end(self) -> None:
        self.log("val_hit@3", self.val_hit.compute())
        self.val_hit.reset()

    def val_dataloader(self) -> DataLoader[Batch]:
        return DataLoader(sessions(22), batch_size=4)


def main(make_trainer: Callable[..., Trainer]) -> None:
    make_trainer().validate(SessionRecommender(), verbose=False)
