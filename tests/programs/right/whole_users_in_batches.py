"""A batch sampler that keeps the rows of a user together: values of batches, weighed by their users, are right.

Kind: per-step value
"""

from collections.abc import Callable

import torch
from lightning.pytorch import LightningModule, Trainer
from torch.utils.data import DataLoader
from torchmetrics.retrieval import RetrievalMAP

from ..data import Batch, clicks
from ..models import Recommender


def batches_of_users(users: torch.Tensor, size: int, rank: int, ranks: int) -> list[list[int]]:
    """The rows of `size` users a batch, for every rank users of its own."""
    own = users.unique()[rank::ranks]
    return [torch.isin(users, part).nonzero().flatten().tolist() for part in own.split(size)]


class UserRanking(LightningModule):
    def __init__(self) -> None:
        super().__init__()
        self.model = Recommender()
        self.map = RetrievalMAP()

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        scores = self.model(batch["user"], batch["item"])
        value = self.map(scores, batch["clicked"], indexes=batch["user"])
        users = len(batch["user"].unique())
        self.log("val_map", value, on_step=False, on_epoch=True, sync_dist=True, batch_size=users)

    def val_dataloader(self) -> DataLoader[Batch]:
        data = clicks(14)
        batches = batches_of_users(data.columns["user"], 3, self.global_rank, self.trainer.world_size)
        return DataLoader(data, batch_sampler=batches)


def main(make_trainer: Callable[..., Trainer]) -> None:
    make_trainer(use_distributed_sampler=False).validate(UserRanking(), verbose=False)
