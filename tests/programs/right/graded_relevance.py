"""Relevance in grades, which nDCG alone takes; compute() is logged with sync_dist=True, which averages equal numbers.

Kind: compute() at the end of the epoch
"""

from collections.abc import Callable

from lightning.pytorch import LightningModule, Trainer
from torch.utils.data import DataLoader
from torchmetrics.retrieval import RetrievalNormalizedDCG

from ..data import Batch, graded_passages
from ..models import CrossEncoder


class WebSearch(LightningModule):
    def __init__(self) -> None:
        super().__init__()
        self.model = CrossEncoder()
        self.ndcg = RetrievalNormalizedDCG(top_k=4)

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        scores = self.model(batch["question"], batch["passages"])
        self.ndcg.update(scores, batch["labels"], indexes=batch["question_id"][:, None].expand_as(scores))

    def on_validation_epoch_end(self) -> None:
        self.log("val_ndcg@4", self.ndcg.compute(), sync_dist=True)  # expect: note:LRG202@2
        self.ndcg.reset()

    def val_dataloader(self) -> DataLoader[Batch]:
        return DataLoader(graded_passages(22), batch_size=4)


def main(make_trainer: Callable[..., Trainer]) -> None:
    make_trainer().validate(WebSearch(), verbose=False)
