"""23 questions on two devices: the sampler repeats one of them, and it counts twice.

Kind: one for each other rule
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
        self.recall, self.mrr = RetrievalRecall(top_k=1), RetrievalMRR()

    def test_step(self, batch: Batch, batch_idx: int) -> None:
        scores = self.model(batch["question"], batch["passages"])
        ids = batch["question_id"][:, None].expand_as(scores)
        self.recall.update(scores, batch["labels"], indexes=ids)
        self.mrr.update(scores, batch["labels"], indexes=ids)

    def on_test_epoch_end(self) -> None:
        self.log("test_recall@1", self.recall.compute())  # expect: LRG403@2
        self.log("test_mrr", self.mrr.compute())  # expect: note:LRG403@2


def main(make_trainer: Callable[..., Trainer]) -> None:
    make_trainer().test(DenseRetriever(), DataLoader(passages(23), batch_size=4), verbose=False)
