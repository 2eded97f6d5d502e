"""update() and then compute() in every step: the log averages running values, of which the early ones weigh most.

Kind: one for each other rule
Right form: dense_retriever_compute_at_end
"""

from collections.abc import Callable

from lightning.pytorch import LightningModule, Trainer
from torch.utils.data import DataLoader
from torchmetrics.retrieval import RetrievalMRR

from ..data import Batch, passages
from ..models import DualEncoder


class DenseRetriever(LightningModule):
    def __init__(self) -> None:
        super().__init__()
        self.model = DualEncoder()
        self.mrr = RetrievalMRR()

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        scores = self.model(batch["question"], batch["passages"])
        self.mrr.update(scores, batch["labels"], indexes=batch["question_id"][:, None].expand_as(scores))
        self.log("val_mrr", self.mrr.compute())  # expect: LRG402 note:LRG207@2  # lint: note:LRG207

    def val_dataloader(self) -> DataLoader[Batch]:
        return DataLoader(passages(22), batch_size=4)


def main(make_trainer: Callable[..., Trainer]) -> None:
    make_trainer().validate(DenseRetriever(), verbose=False)
