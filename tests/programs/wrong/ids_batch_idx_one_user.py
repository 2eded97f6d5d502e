"""One user with all candidates a batch, and batch_idx as the id: ranks number their users alike.

Kind: colliding ids
Stays: nothing shows that the number of the batch is not an id of the data
"""

from collections.abc import Callable

import torch
from lightning.pytorch import LightningModule, Trainer
from torch.utils.data import DataLoader
from torchmetrics.retrieval import RetrievalNormalizedDCG

from ..data import Batch, sessions
from ..models import NextItem


class UserRanking(LightningModule):
    def __init__(self) -> None:
        super().__init__()
        self.model = NextItem()
        self.ndcg = RetrievalNormalizedDCG()

    def test_step(self, batch: Batch, batch_idx: int) -> None:
        scores = self.model(batch["history"], batch["candidates"])[0]
        target = batch["candidates"][0] == batch["next_item"]
        self.ndcg.update(scores, target, indexes=torch.full_like(batch["candidates"][0], batch_idx))  # lint: LRG301

    def on_test_epoch_end(self) -> None:
        self.log("test_ndcg", self.ndcg.compute())  # expect: LRG301@2


def main(make_trainer: Callable[..., Trainer]) -> None:
    make_trainer().test(UserRanking(), DataLoader(sessions(14), batch_size=1), verbose=False)
