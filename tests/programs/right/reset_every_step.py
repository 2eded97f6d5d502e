"""update(), compute() and reset() in every step, without synchronisation: values of whole queries, rightly averaged.

Kind: per-step value
"""

from collections.abc import Callable

from lightning.pytorch import LightningModule, Trainer
from torch.utils.data import DataLoader
from torchmetrics.retrieval import RetrievalPrecision

from ..data import Batch, passages
from ..models import DualEncoder


class PerBatchRetriever(LightningModule):
    def __init__(self) -> None:
        super().__init__()
        self.model = DualEncoder()
        self.precision = RetrievalPrecision(top_k=2, sync_on_compute=False)

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        scores = self.model(batch["question"], batch["passages"])
        self.precision.update(scores, batch["labels"], indexes=batch["question_id"][:, None].expand_as(scores))
        self.log("val_p@2", self.precision.compute(), sync_dist=True)
        self.precision.reset()

    def val_dataloader(self) -> DataLoader[Batch]:
        return DataLoader(passages(22), batch_size=4)


def main(make_trainer: Callable[..., Trainer]) -> None:
    make_trainer().validate(PerBatchRetriever(), verbose=False)
