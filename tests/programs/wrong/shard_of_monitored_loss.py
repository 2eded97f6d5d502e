"""A validation loss without sync_dist that early stopping watches.

Kind: rank 0's shard only
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


class ContrastiveRetriever(LightningModule):
    def __init__(self) -> None:
        super().__init__()
        self.model = DualEncoder()
        self.val_mrr = RetrievalMRR()

    def loss(self, batch: Batch) -> tuple[Tensor, Tensor]:
        scores = self.model(batch["question"], batch["passages"])
        return functional.cross_entropy(scores / 0.1, batch["labels"].argmax(dim=1)), scores

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        return self.loss(batch)[0]

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        loss, scores = self.loss(batch)
        self.val_mrr.update(scores, batch["labels"], indexes=batch["question_id"][:, None].expand_as(scores))
        self.log("val_loss", loss, prog_bar=True)  # expect: LRG203@2  # lint: missed:LRG203
        self.log("val_mrr", self.val_mrr)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.1)


def main(make_trainer: Callable[..., Trainer]) -> None:
    trainer = make_trainer(max_epochs=2, callbacks=[EarlyStopping(monitor="val_loss", patience=5)])
    size = 12 // trainer.world_size
    trainer.fit(ContrastiveRetriever(), DataLoader(passages(24), size), DataLoader(passages(20), size))
