"""Hits and queries are counted, summed over the ranks by hand, and divided: a plain value, equal on every rank.

Kind: manual all_gather
"""

from collections.abc import Callable

import torch
from lightning.pytorch import LightningModule, Trainer
from torch.utils.data import DataLoader

from ..data import Batch, sessions
from ..models import NextItem


class HitCounter(LightningModule):
    def __init__(self) -> None:
        super().__init__()
        self.model = NextItem()
        self.register_buffer("counts", torch.zeros(2))

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        scores = self.model(batch["history"], batch["candidates"])
        is_next = batch["candidates"] == batch["next_item"][:, None]
        hits = (scores > scores[is_next][:, None]).sum(dim=1) < 3
        self.counts += torch.stack([hits.sum(), torch.tensor(len(hits))])

    def on_validation_epoch_end(self) -> None:
        hits, queries = self.trainer.strategy.reduce(self.counts.clone(), reduce_op="sum")
        self.log("val_hit@3", hits / queries)
        self.counts.zero_()

    def val_dataloader(self) -> DataLoader[Batch]:
        return DataLoader(sessions(22), batch_size=4)


def main(make_trainer: Callable[..., Trainer]) -> None:
    make_trainer().validate(HitCounter(), verbose=False)
