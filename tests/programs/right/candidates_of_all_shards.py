"""Similarities in the epoch-end hook between the questions of the rank and the passages of all ranks.

Kind: metric object at the end
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
        texts, labels = (self.all_gather(column).reshape(-1, *column.shape[1:]) for column in (text, index))
        scores = self.model.similarity(image, texts)
        self.mrr.update(scores, index[:, None] == labels, indexes=index[:, None].expand_as(scores))
        self.log("val_mrr", self.mrr)
        self.seen.clear()

    def val_dataloader(self) -> DataLoader[Batch]:
        return DataLoader(pairs(24), batch_size=6)


def main(make_trainer: Callable[..., Trainer]) -> None:
    make_trainer().validate(ImageText(), verbose=False)
