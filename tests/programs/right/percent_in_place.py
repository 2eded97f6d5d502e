"""Values that are made percentages in place, at the end of the epoch and in the step.

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
        self.mrr, self.recall = RetrievalMRR(), RetrievalRecall(top_k=1)

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        scores = self.model(batch["question"], batch["passages"])
        ids = batch["question_id"][:, None].expand_as(scores)
        self.mrr.update(scores, batch["labels"], indexes=ids)
        recall = self.recall(scores, batch["labels"], indexes=ids)
        recall *= 100
        self.log("val_recall@1_percent", recall, batch_size=len(scores), sync_dist=True)

    def on_validation_epoch_end(self) -> None:
        mrr = self.mrr.compute()
        mrr *= 100
        self.log("val_mrr_percent", mrr)
        self.mrr.reset()

    def val_dataloader(self) -> DataLoader[Batch]:
        return DataLoader(passages(22), batch_size=4)


def main(make_trainer: Callable[..., Trainer]) -> None:
    make_trainer().validate(DenseRetriever(), verbose=False)
