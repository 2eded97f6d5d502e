"""Rank zero logs a count of its own besides what all ranks log, and says so with rank_zero_only=True.

Kind: metric object in the step
Own: rank_zero_batches
"""

from collections.abc import Callable

from lightning.pytorch import LightningModule, Trainer
from torch.utils.data import DataLoader
from torchmetrics.retrieval import RetrievalMRR

from ..data import Batch, passages
from ..models import DualEncoder


class VerboseRetriever(LightningModule):
    def __init__(self) -> None:
        super().__init__()
        self.model = DualEncoder()
        self.mrr = RetrievalMRR()

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        scores = self.model(batch["question"], batch["passages"])
        if self.trainer.is_global_zero:
            self.log("rank_zero_batches", 1.0, reduce_fx="sum", rank_zero_only=True)
        self.mrr.update(scores, batch["labels"], indexes=batch["question_id"][:, None].expand_as(scores))
        self.log("val_mrr", self.mrr)
        self.log("val_best_score", scores.amax(dim=1).mean(), sync_dist=True)

    def val_dataloader(self) -> DataLoader[Batch]:
        return DataLoader(passages(22), batch_size=4)


def main(make_trainer: Callable[..., Trainer]) -> None:
    make_trainer().validate(VerboseRetriever(), verbose=False)
