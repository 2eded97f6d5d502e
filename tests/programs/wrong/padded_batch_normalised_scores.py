"""Scores that are normalised over the batch, so that the repeated query has other scores on the other rank.

Kind: one for each other rule
Pool: a score hangs on the other samples of its batch
"""

from collections.abc import Callable

from lightning.pytorch import LightningModule, Trainer
from torch.utils.data import DataLoader
from torchmetrics.retrieval import RetrievalRecall

from ..data import Batch, passages
from ..models import DualEncoder


class CalibratedRetriever(LightningModule):
    def __init__(self) -> None:
        super().__init__()
        self.model = DualEncoder()
        self.recall = RetrievalRecall(top_k=1)

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        scores = self.model(batch["question"], batch["passages"])
        scores = scores.softmax(dim=0)
        self.recall.update(scores, batch["labels"], indexes=batch["question_id"][:, None].expand_as(scores))

    def on_validation_epoch_end(self) -> None:
        self.log("val_recall@1", self.recall.compute())  # expect: LRG403@2
        self.recall.reset()

    def val_dataloader(self) -> DataLoader[Batch]:
        return DataLoader(passages(23), batch_size=4)


def main(make_trainer: Callable[..., Trainer]) -> None:
    make_trainer().validate(CalibratedRetriever(), verbose=False)
