"""A small benchmark that every rank evaluates as a whole, with metrics that do not synchronise.

Kind: compute() at the end of the epoch
"""

from collections.abc import Callable

from lightning.pytorch import LightningModule, Trainer
from torch.utils.data import DataLoader
from torchmetrics.retrieval import RetrievalNormalizedDCG

from ..data import Batch, passages
from ..models import DualEncoder


class SmallBenchmark(LightningModule):
    def __init__(self) -> None:
        super().__init__()
        self.model = DualEncoder()
        self.ndcg = RetrievalNormalizedDCG(sync_on_compute=False)

    def test_step(self, batch: Batch, batch_idx: int) -> None:
        scores = self.model(batch["question"], batch["passages"])
        self.ndcg.update(scores, batch["labels"], indexes=batch["question_id"][:, None].expand_as(scores))
        self.log("test_margin", (scores.amax(dim=1) - scores.amin(dim=1)).mean())

    def on_test_epoch_end(self) -> None:
        self.log("test_ndcg", self.ndcg.compute())
        self.ndcg.reset()


def main(make_trainer: Callable[..., Trainer]) -> None:
    loader = DataLoader(passages(11), batch_size=4)
    make_trainer(use_distributed_sampler=False).test(SmallBenchmark(), loader, verbose=False)
