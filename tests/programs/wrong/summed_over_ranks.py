"""compute() combines all ranks, and sync_dist with reduce_fx="sum" adds the value up once for each of them.

Kind: one for each other rule
"""

from collections.abc import Callable

from lightning.pytorch import LightningModule, Trainer
from torch.utils.data import DataLoader
from torchmetrics.retrieval import RetrievalHitRate

from ..data import Batch, passages
from ..models import DualEncoder


class PassageRetriever(LightningModule):
    def __init__(self) -> None:
        super().__init__()
        self.model = DualEncoder()
        self.hit = RetrievalHitRate(top_k=1)

    def test_step(self, batch: Batch, batch_idx: int) -> None:
        scores = self.model(batch["question"], batch["passages"])
        self.hit.update(scores, batch["labels"], indexes=batch["question_id"][:, None].expand_as(scores))

    def on_test_epoch_end(self) -> None:
        self.log("test_hit@1", self.hit.compute(), sync_dist=True, reduce_fx="sum")  # expect: LRG202@2  # lint: LRG202


def main(make_trainer: Callable[..., Trainer]) -> None:
    make_trainer().test(PassageRetriever(), DataLoader(passages(22), batch_size=4), verbose=False)
