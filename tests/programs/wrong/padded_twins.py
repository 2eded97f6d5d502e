"""23 questions on two devices, two of which are the same with other ids: only the repeated one may count once.

Kind: one for each other rule
"""

from collections.abc import Callable

from lightning.pytorch import LightningModule, Trainer
from torch.utils.data import DataLoader
from torchmetrics.retrieval import RetrievalRecall

from ..data import Batch, Columns, passages
from ..models import DualEncoder


def questions_with_twins() -> Columns:
    columns = passages(23).columns
    for name in ("question", "passages", "labels"):
        columns[name][21] = columns[name][0]  # the last sample of the second device that is not repeated
    return Columns(**columns)


class DenseRetriever(LightningModule):
    def __init__(self) -> None:
        super().__init__()
        self.model = DualEncoder()
        self.recall = RetrievalRecall(top_k=1)

    def test_step(self, batch: Batch, batch_idx: int) -> None:
        scores = self.model(batch["question"], batch["passages"])
        self.recall.update(scores, batch["labels"], indexes=batch["question_id"][:, None].expand_as(scores))
        self.log("test_recall@1", self.recall)  # expect: LRG403@2


def main(make_trainer: Callable[..., Trainer]) -> None:
    make_trainer().test(DenseRetriever(), DataLoader(questions_with_twins(), batch_size=4), verbose=False)
