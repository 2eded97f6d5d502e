"""The median over all queries, and the worst one, from metrics that are logged as objects.

Kind: metric object in the step
"""

from collections.abc import Callable

from lightning.pytorch import LightningModule, Trainer
from torch.utils.data import DataLoader
from torchmetrics.retrieval import RetrievalMRR

from ..data import Batch, passages
from ..models import DualEncoder


class RobustRetriever(LightningModule):
    def __init__(self) -> None:
        super().__init__()
        self.model = DualEncoder()
        self.median_rr = RetrievalMRR(aggregation="median")
        self.worst_rr = RetrievalMRR(aggregation="min")

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        scores = self.model(batch["question"], batch["passages"])
        ids = batch["question_id"][:, None].expand_as(scores)
        self.median_rr.update(scores, batch["labels"], indexes=ids)
        self.worst_rr.update(scores, batch["labels"], indexes=ids)
        self.log("val_median_rr", self.median_rr, prog_bar=True)
        self.log("val_worst_rr", self.worst_rr)

    def val_dataloader(self) -> DataLoader[Batch]:
        return DataLoader(passages(26, candidates=5), batch_size=4)


def main(make_trainer: Callable[..., Trainer]) -> None:
    make_trainer().validate(RobustRetriever(), verbose=False)
