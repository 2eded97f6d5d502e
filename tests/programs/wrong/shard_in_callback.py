"""A callback that collects the scores of its rank and logs their recall at the end of the epoch.

Kind: rank 0's shard only
Stays: nothing tells how values of an epoch-end hook must be combined
"""

from collections.abc import Callable
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor
from torch.utils.data import DataLoader
from torchmetrics.functional.retrieval import retrieval_recall

from ..data import Batch, passages
from ..models import DualEncoder


class RecallCallback(Callback):
    def __init__(self, top_k: int) -> None:
        self.top_k = top_k
        self.values: list[Tensor] = []

    def on_validation_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Tensor, batch: Batch, *args: Any
    ) -> None:
        lists = zip(outputs, batch["labels"], strict=True)
        self.values += [retrieval_recall(score, label, top_k=self.top_k) for score, label in lists]

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.log(f"recall@{self.top_k}", torch.stack(self.values).mean())  # expect: LRG203@2  # lint: LRG203
        self.values.clear()


class DenseRetriever(LightningModule):
    def __init__(self) -> None:
        super().__init__()
        self.model = DualEncoder()

    def validation_step(self, batch: Batch, batch_idx: int) -> Tensor:
        return self.model(batch["question"], batch["passages"])

    def val_dataloader(self) -> DataLoader[Batch]:
        return DataLoader(passages(22), batch_size=4)


def main(make_trainer: Callable[..., Trainer]) -> None:
    make_trainer(callbacks=[RecallCallback(top_k=2)]).validate(DenseRetriever(), verbose=False)
