"""Scores rounded to one digit: relevant and other rows tie at the cut, and their order decides.

Kind: one for each other rule
Pool: the order of rows decides, and devices hold another one
"""

from collections.abc import Callable

from lightning.pytorch import LightningModule, Trainer
from torch.utils.data import DataLoader
from torchmetrics.retrieval import RetrievalRecall

from ..data import Batch, passages
from ..models import DualEncoder


class QuantisedRetriever(LightningModule):
    def __init__(self) -> None:
        super().__init__()
        self.model = DualEncoder()
        self.recall = RetrievalRecall(top_k=2)

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        scores = self.model(batch["question"], batch["passages"]).round(decimals=1)
        self.recall.update(scores, batch["labels"], indexes=batch["question_id"][:, None].expand_as(scores))
        self.log("val_recall@2", self.recall)  # expect: LRG304

    def val_dataloader(self) -> DataLoader[Batch]:
        return DataLoader(passages(22), batch_size=4)


def main(make_trainer: Callable[..., Trainer]) -> None:
    make_trainer().validate(QuantisedRetriever(), verbose=False)
