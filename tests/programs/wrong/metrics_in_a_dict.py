"""Metrics in a plain dictionary, which Lightning neither finds nor moves; on the CPU the numbers are right.

Kind: one for each other rule
"""

from collections.abc import Callable

from lightning.pytorch import LightningModule, Trainer
from torch.utils.data import DataLoader
from torchmetrics.retrieval import RetrievalMAP, RetrievalMRR

from ..data import Batch, passages
from ..models import DualEncoder


class DenseRetriever(LightningModule):
    def __init__(self) -> None:
        super().__init__()
        self.model = DualEncoder()
        self.my_metrics = {"mrr": RetrievalMRR(), "map": RetrievalMAP()}  # lint: LRG405

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        scores = self.model(batch["question"], batch["passages"])
        for metric in self.my_metrics.values():
            metric.update(scores, batch["labels"], indexes=batch["question_id"][:, None].expand_as(scores))

    def on_validation_epoch_end(self) -> None:
        for name, metric in self.my_metrics.items():
            self.log(f"val_{name}", metric.compute())  # expect: note:LRG405
            metric.reset()

    def val_dataloader(self) -> DataLoader[Batch]:
        return DataLoader(passages(22), batch_size=4)


def main(make_trainer: Callable[..., Trainer]) -> None:
    make_trainer().validate(DenseRetriever(), verbose=False)
