"""One metric for training and validation: each number counts the rows of both stages.

Kind: one for each other rule
Right form: clip_collection_with_prefix
"""

from collections.abc import Callable

import torch
from lightning.pytorch import LightningModule, Trainer
from torch import Tensor
from torch.nn import functional
from torch.utils.data import DataLoader
from torchmetrics.retrieval import RetrievalMRR

from ..data import Batch, passages
from ..models import DualEncoder


class ClipRetrieval(LightningModule):
    def __init__(self) -> None:
        super().__init__()
        self.model = DualEncoder()
        self.mrr = RetrievalMRR()

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        scores = self.model(batch["question"], batch["passages"])
        self.mrr.update(scores.detach(), batch["labels"], indexes=self.ids(batch))
        return functional.binary_cross_entropy(scores.clamp(max=0.999), batch["labels"].float())

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        scores = self.model(batch["question"], batch["passages"])
        self.mrr.update(scores, batch["labels"], indexes=self.ids(batch))

    def on_validation_epoch_end(self) -> None:
        self.log("val_mrr", self.mrr.compute(), prog_bar=True)  # expect: LRG404

    def on_train_epoch_end(self) -> None:
        self.log("train_mrr", self.mrr.compute())  # expect: LRG404
        self.mrr.reset()

    def ids(self, batch: Batch) -> Tensor:
        return batch["question_id"][:, None].expand_as(batch["labels"])

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.1)

    def train_dataloader(self) -> DataLoader[Batch]:
        return DataLoader(passages(24), batch_size=12 // self.trainer.world_size)

    def val_dataloader(self) -> DataLoader[Batch]:
        return DataLoader(passages(18), batch_size=4)


def main(make_trainer: Callable[..., Trainer]) -> None:
    make_trainer(max_epochs=1, num_sanity_val_steps=0).fit(ClipRetrieval())
