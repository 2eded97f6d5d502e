"""Outputs of the steps are concatenated at the end and ranked by hand, without a gather.

Kind: rank 0's shard only
Stays: nothing tells how values of an epoch-end hook must be combined
"""

from collections.abc import Callable

import torch
from lightning.pytorch import LightningModule, Trainer
from torch import Tensor
from torch.utils.data import DataLoader

from ..data import Batch, sessions
from ..models import NextItem


class SessionRecommender(LightningModule):
    def __init__(self) -> None:
        super().__init__()
        self.model = NextItem()
        self.ranks: list[Tensor] = []

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        scores = self.model(batch["history"], batch["candidates"])
        is_next = batch["candidates"] == batch["next_item"][:, None]
        self.ranks.append((scores > scores[is_next][:, None]).sum(dim=1) + 1)

    def on_validation_epoch_end(self) -> None:
        ranks = torch.cat(self.ranks).float()
        self.log("val_mrr", (1 / ranks).mean())  # expect: LRG203@2  # lint: LRG203
        self.log("val_hit@3", (ranks <= 3).float().mean().item())  # expect: LRG203@2  # lint: LRG203
        self.ranks.clear()

    def val_dataloader(self) -> DataLoader[Batch]:
        return DataLoader(sessions(22), batch_size=4)


def main(make_trainer: Callable[..., Trainer]) -> None:
    make_trainer().validate(SessionRecommender(), verbose=False)
