"""Each user of the data set stands once in every batch, and a short last batch has the first ones only.

Kind: metric object in the step
"""

from collections.abc import Callable

import torch
from lightning.pytorch import LightningModule, Trainer
from torch.utils.data import DataLoader
from torchmetrics.retrieval import RetrievalMRR

from ..data import Batch, Columns, sessions
from ..models import NextItem

USERS = 6


def sessions_of_all_users() -> Columns:
    """The sessions of the first device and of the second one in turns, so that each has those of every user."""
    columns = sessions(2 * (3 * USERS + 3)).columns
    return Columns(**{**columns, "user": torch.arange(2 * (3 * USERS + 3)) // 2 % USERS})


class Sessions(LightningModule):
    def __init__(self) -> None:
        super().__init__()
        self.model = NextItem()
        self.mrr = RetrievalMRR()

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        scores = self.model(batch["history"], batch["candidates"])
        hit = batch["candidates"] == batch["next_item"][:, None]
        self.mrr.update(scores, hit, indexes=batch["user"][:, None].expand_as(scores))
        self.log("val_mrr", self.mrr)

    def val_dataloader(self) -> DataLoader[Batch]:
        return DataLoader(sessions_of_all_users(), batch_size=2 * USERS // self.trainer.world_size)


def main(make_trainer: Callable[..., Trainer]) -> None:
    make_trainer().validate(Sessions(), verbose=False)
