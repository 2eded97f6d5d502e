"""Embeddings are gathered at the end of the epoch by hand, and ranked by a metric that gathers them again.

Kind: gathered twice
Right form: clip_gathered_at_end
"""

from collections.abc import Callable

import torch
from lightning.pytorch import LightningModule, Trainer
from torch import Tensor
from torch.utils.data import DataLoader
from torchmetrics.retrieval import RetrievalRecall

from ..data import Batch, pairs
from ..models import DualEncoder


class ImageText(LightningModule):
    def __init__(self) -> None:
        super().__init__()
        self.model = DualEncoder()
        self.recall = RetrievalRecall(top_k=1)
        self.image: list[Tensor] = []
        self.text: list[Tensor] = []

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        self.image.append(self.model.encode_query(batch["image"]))
        self.text.append(self.model.encode_document(batch["text"]))

    def on_validation_epoch_end(self) -> None:
        image, text = (self.all_gather(torch.cat(part)).flatten(0, -2) for part in (self.image, self.text))
        similarity = image @ text.T
        ids = torch.arange(len(similarity))[:, None].expand_as(similarity)
        self.recall.update(similarity, torch.eye(len(similarity), dtype=torch.bool), indexes=ids)  # lint: LRG201
        self.log("val_i2t_recall@1", self.recall.compute())  # expect: LRG201@2
        self.recall.reset()

    def val_dataloader(self) -> DataLoader[Batch]:
        return DataLoader(pairs(24), batch_size=5)


def main(make_trainer: Callable[..., Trainer]) -> None:
    make_trainer().validate(ImageText(), verbose=False)
