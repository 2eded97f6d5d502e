"""The median over queries of every batch, and Lightning's mean of the medians.

Kind: averages what may not be averaged
Right form: median_of_queries
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

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        scores = self.model(batch["question"], batch["passages"])
        value = self.median_rr(scores, batch["labels"], indexes=batch["question_id"][:, None].expand_as(scores))
        self.log("val_median_rr", value, sync_dist=True, prog_bar=True)  # expect: LRG302  # lint: LRG302

    def val_dataloader(self) -> DataLoader[Batch]:
        return DataLoader(passages(26, candidates=5), batch_size=4)


def main(make_trainer: Callable[..., Trainer]) -> None:
    make_trainer().validate(RobustRetriever(), verbose=False)
