"""A dense retriever that updates in the step and logs compute() at the end of the epoch.

Kind: compute() at the end of the epoch
"""

from collections.abc import Callable

from lightning.pytorch import LightningModule, Trainer
from torch.utils.data import DataLoader
from torchmetrics.retrieval import RetrievalMRR, RetrievalRecall

from ..data import Batch, passages
from ..models import DualEncoder


class DenseRetriever(LightningModule):
    def __init__(self) -> None:
        super().__init__()
        self.model = DualEncoder()
        self.recall = RetrievalRecall(top_k=2)
        self.mrr = RetrievalMRR()

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        scores = self.model(batch["question"], batch["passages"])
        ids = batch["question_id"][:, None].expand_as(scores)
        self.recall.update(scores, batch["labels"], indexes=ids)
        self.mrr.update(scores, batch["labels"], indexes=ids)

    def on_validation_epoch_end(self) -> None:
        self.log("val_recall@2", self.recall.compute(), prog_bar=True)
        self.log("val_mrr", self.mrr.compute(), prog_bar=True)
        self.recall.reset()
        self.mrr.reset()

    def val_dataloader(self) -> DataLoader[Batch]:
        return DataLoader(passages(22), batch_size=4)


def main(make_trainer: Callable[..., Trainer]) -> None:
    make_trainer().validate(DenseRetriever(), verbose=False)
