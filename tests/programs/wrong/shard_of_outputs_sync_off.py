"""Outputs of the steps are concatenated at the end and fed to a metric that was told not to synchronise.

Kind: rank 0's shard only
"""

from collections.abc import Callable

import torch
from lightning.pytorch import LightningModule, Trainer
from torch import Tensor
from torch.utils.data import DataLoader
from torchmetrics.retrieval import RetrievalMAP

from ..data import Batch, passages
from ..models import CrossEncoder


class CodeSearch(LightningModule):
    def __init__(self) -> None:
        super().__init__()
        self.model = CrossEncoder()
        self.outputs: list[tuple[Tensor, Tensor, Tensor]] = []

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        scores = self.model(batch["question"], batch["passages"])
        self.outputs.append((scores, batch["labels"], batch["question_id"][:, None].expand_as(scores)))

    def on_validation_epoch_end(self) -> None:
        preds, target, indexes = (torch.cat(column) for column in zip(*self.outputs, strict=True))
        metric = RetrievalMAP(sync_on_compute=False)
        metric.update(preds, target, indexes=indexes)
        self.log("val_map", metric.compute(), prog_bar=True)  # expect: LRG203@2  # lint: LRG203
        self.outputs.clear()

    def val_dataloader(self) -> DataLoader[Batch]:
        return DataLoader(passages(22), batch_size=4)


def main(make_trainer: Callable[..., Trainer]) -> None:
    make_trainer().validate(CodeSearch(), verbose=False)
