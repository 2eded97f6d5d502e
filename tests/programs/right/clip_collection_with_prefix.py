"""A CLIP-like model with one MetricCollection, cloned for each stage.

Kind: metric object in the step
"""

from collections.abc import Callable

import torch
from lightning.pytorch import LightningModule, Trainer
from torch import Tensor
from torch.nn import functional
from torch.utils.data import DataLoader
from torchmetrics import MetricCollection
from torchmetrics.retrieval import RetrievalHitRate, RetrievalMRR, RetrievalNormalizedDCG

from ..data import Batch, passages
from ..models import DualEncoder


class ClipRetrieval(LightningModule):
    def __init__(self) -> None:
        super().__init__()
        self.model = DualEncoder()
        metrics = MetricCollection(
            {"mrr": RetrievalMRR(), "ndcg": RetrievalNormalizedDCG(top_k=3), "hit": RetrievalHitRate(top_k=1)}
        )
        self.train_metrics = metrics.clone(prefix="train_")
        self.val_metrics = metrics.clone(prefix="val_")

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        scores = self.model(batch["question"], batch["passages"])
        self.train_metrics.update(scores.detach(), batch["labels"], indexes=self.ids(batch))
        self.log_dict(self.train_metrics, on_step=False, on_epoch=True)
        return functional.binary_cross_entropy(scores.clamp(max=0.999), batch["labels"].float())

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        scores = self.model(batch["question"], batch["passages"])
        self.val_metrics.update(scores, batch["labels"], indexes=self.ids(batch))
        self.log_dict(self.val_metrics, prog_bar=True)

    def ids(self, batch: Batch) -> Tensor:
        return batch["question_id"][:, None].expand_as(batch["labels"])

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.1)

    def train_dataloader(self) -> DataLoader[Batch]:
        return DataLoader(passages(24), batch_size=12 // self.trainer.world_size)

    def val_dataloader(self) -> DataLoader[Batch]:
        return DataLoader(passages(18), batch_size=4)


def main(make_trainer: Callable[..., Trainer]) -> None:
    make_trainer(max_epochs=1).fit(ClipRetrieval())
