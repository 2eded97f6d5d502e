"""Each question is an update of its own, under its number in the data.

Kind: metric object in the step
"""

from collections.abc import Callable

from lightning.pytorch import LightningModule, Trainer
from torch.utils.data import DataLoader
from torchmetrics.retrieval import RetrievalMRR

from ..data import Batch, passages
from ..models import CrossEncoder


class Reranker(LightningModule):
    def __init__(self) -> None:
        super().__init__()
        self.model = CrossEncoder()
        self.mrr = RetrievalMRR()

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        scores = self.model(batch["question"], batch["passages"])
        for row, labels, number in zip(scores, batch["labels"], batch["question_id"], strict=True):
            self.mrr.update(row, labels, indexes=number.expand_as(labels))
        self.log("val_mrr", self.mrr)

    def val_dataloader(self) -> DataLoader[Batch]:
        return DataLoader(passages(22), batch_size=4)


def main(make_trainer: Callable[..., Trainer]) -> None:
    make_trainer().validate(Reranker(), verbose=False)
