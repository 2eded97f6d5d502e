"""batch_idx as the id of all rows of a batch, in which there are several users.

Kind: colliding ids
Known miss: LRG301, because one id for several samples proves nothing: a query may come in several batches
Stays: the evidence is ambiguous
"""

from collections.abc import Callable

import torch
from lightning.pytorch import LightningModule, Trainer
from torch.utils.data import DataLoader
from torchmetrics.retrieval import RetrievalMAP

from ..data import Batch, sessions
from ..models import NextItem


class Recommendation(LightningModule):
    def __init__(self) -> None:
        super().__init__()
        self.model = NextItem()
        self.map = RetrievalMAP(top_k=5)

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        scores = self.model(batch["history"], batch["candidates"])
        target = batch["candidates"] == batch["next_item"][:, None]
        self.map.update(scores, target, indexes=torch.full(scores.shape, batch_idx))  # lint: LRG301
        self.log("val_map@5", self.map)  # expect: LRG301@2

    def val_dataloader(self) -> DataLoader[Batch]:
        return DataLoader(sessions(24), batch_size=4)


def main(make_trainer: Callable[..., Trainer]) -> None:
    make_trainer().validate(Recommendation(), verbose=False)
