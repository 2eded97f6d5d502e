"""A dense retriever that is trained for two epochs and logs the metric itself; a checkpoint callback would watch it.

Kind: metric object in the step
Own: train_loss
"""

from collections.abc import Callable

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import EarlyStopping
from torch import Tensor
from torch.nn import functional
from torch.utils.data import DataLoader
from torchmetrics.retrieval import RetrievalMRR

from ..data import Batch, passages
from ..models import DualEncoder


class DenseRetriever(LightningModule):
    def __init__(self) -> None:
        super().__init__()
        self.model = DualEncoder()
        self.mrr = RetrievalMRR(top_k=3)

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        scores = self.model(batch["question"], batch["passages"])
        loss = functional.binary_cross_entropy(scores.clamp(max=0.999), batch["labels"].float())
        self.log("train_loss", loss)
        return loss

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        scores = self.model(batch["question"], batch["passages"])
        self.mrr(scores, batch["labels"], indexes=batch["question_id"][:, None].expand_as(scores))
        self.log("val_mrr", self.mrr, on_epoch=True, prog_bar=True)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.1)

    def train_dataloader(self) -> DataLoader[Batch]:
        return DataLoader(passages(24), batch_size=12 // self.trainer.world_size)

    def val_dataloader(self) -> DataLoader[Batch]:
        return DataLoader(passages(22), batch_size=4)


def main(make_trainer: Callable[..., Trainer]) -> None:
    stop = EarlyStopping(monitor="val_mrr", mode="max", patience=5)
    make_trainer(max_epochs=2, callbacks=[stop]).fit(DenseRetriever())
