"""23 questions on two devices, in batches that a collate function sorts: the repeated question is not the last one.

Kind: one for each other rule
"""

from collections.abc import Callable, Sequence

import torch
from lightning.pytorch import LightningModule, Trainer
from torch.utils.data import DataLoader, default_collate
from torchmetrics.retrieval import RetrievalRecall

from ..data import Batch, passages
from ..models import DualEncoder


def sort_by_first_feature(samples: Sequence[Batch]) -> Batch:
    """As those who pack sequences sort by length."""
    batch: Batch = default_collate(list(samples))
    order = torch.argsort(batch["question"][:, 0])
    return {name: column[order] for name, column in batch.items()}


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
    loader = DataLoader(passages(23), batch_size=4, collate_fn=sort_by_first_feature)
    make_trainer().test(DenseRetriever(), loader, verbose=False)
