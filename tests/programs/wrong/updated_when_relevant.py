"""Batches without a relevant row are left out, so that ranks update the metric unequally often.

Kind: one for each other rule
Fails: 2
"""

from collections.abc import Callable

from lightning.pytorch import LightningModule, Trainer
from torch.utils.data import DataLoader
from torchmetrics.retrieval import RetrievalMRR

from ..data import Batch, passages
from ..models import CrossEncoder


class SparseRelevance(LightningModule):
    def __init__(self) -> None:
        super().__init__()
        self.model = CrossEncoder()
        self.mrr = RetrievalMRR()

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        scores = self.model(batch["question"], batch["passages"])
        labels = batch["labels"] * (batch["question_id"] % 6 != 3)[:, None]
        if labels.any():
            self.mrr.update(scores, labels, indexes=batch["question_id"][:, None].expand_as(scores))
        self.log("val_mrr", self.mrr)  # expect: LRG205@2

    def val_dataloader(self) -> DataLoader[Batch]:
        return DataLoader(passages(16), batch_size=1)


def main(make_trainer: Callable[..., Trainer]) -> None:
    make_trainer().validate(SparseRelevance(), verbose=False)
