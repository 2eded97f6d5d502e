"""Similarities in the epoch-end hook over the samples of the rank, so each device ranks among its own share.

Kind: depends on pool or weight
Right form: candidates_of_all_shards
Pool: candidates are those of one rank's share
"""

from collections.abc import Callable

import torch
from lightning.pytorch import LightningModule, Trainer
from torch import Tensor
from torch.utils.data import DataLoader
from torchmetrics.retrieval import RetrievalMRR

from ..data import Batch, pairs
from ..models import DualEncoder


class ImageText(LightningModule):
    def __init__(self) -> None:
        super().__init__()
        self.model = DualEncoder()
        self.mrr = RetrievalMRR()
        self.seen: list[tuple[Tensor, Tensor, Tensor]] = []

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        self.seen.append((batch["image"], batch["text"], batch["index"]))

    def on_validation_epoch_end(self) -> None:
        image, text, index = (torch.cat(column) for column in zip(*self.seen, strict=True))
        scores = self.model.similarity(image, text)
        self.mrr.update(scores, index[:, None] == index, indexes=index[:, None].expand_as(scores))
        self.log("val_mrr", self.mrr)  # expect: LRG305@2
        self.seen.clear()

    def val_dataloader(self) -> DataLoader[Batch]:
        return DataLoader(pairs(24), batch_size=6)


def main(make_trainer: Callable[..., Trainer]) -> None:
    make_trainer().validate(ImageText(), verbose=False)
