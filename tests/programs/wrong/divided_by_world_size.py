"""A mean over ranks taken by hand of a value that combines them already: Recall@2 comes out below Recall@1.

Kind: one for each other rule
Stays: the program wrote to the value before it logged it, which makes it a number of its own
"""

from collections.abc import Callable

from lightning.pytorch import LightningModule, Trainer
from torch.utils.data import DataLoader
from torchmetrics.retrieval import RetrievalRecall

from ..data import Batch, passages
from ..models import DualEncoder


class DenseRetriever(LightningModule):
    def __init__(self) -> None:
        super().__init__()
        self.model = DualEncoder()
        self.recall1, self.recall2 = RetrievalRecall(top_k=1), RetrievalRecall(top_k=2)

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        scores = self.model(batch["question"], batch["passages"])
        for metric in (self.recall1, self.recall2):
            metric.update(scores, batch["labels"], indexes=batch["question_id"][:, None].expand_as(scores))

    def on_validation_epoch_end(self) -> None:
        self.log("val_recall@1", self.recall1.compute())
        recall = self.recall2.compute()
        recall /= self.trainer.world_size
        self.log("val_recall@2", recall)  # expect: LRG501@2
        self.recall1.reset()
        self.recall2.reset()

    def val_dataloader(self) -> DataLoader[Batch]:
        return DataLoader(passages(22), batch_size=4)


def main(make_trainer: Callable[..., Trainer]) -> None:
    make_trainer().validate(DenseRetriever(), verbose=False)
