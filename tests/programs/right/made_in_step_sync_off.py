"""A metric made in the step over whole queries, without synchronisation, averaged by their number.

Kind: per-step value
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

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        scores = self.model(batch["question"], batch["passages"])
        mrr = RetrievalMRR(sync_on_compute=False)
        mrr.update(scores, batch["labels"], indexes=batch["question_id"][:, None].expand_as(scores))
        self.log("val_mrr", mrr.compute(), sync_dist=True, batch_size=float(len(scores)))

    def val_dataloader(self) -> DataLoader[Batch]:
        return DataLoader(passages(22), batch_size=4)


def main(make_trainer: Callable[..., Trainer]) -> None:
    make_trainer().validate(Reranker(), verbose=False)
