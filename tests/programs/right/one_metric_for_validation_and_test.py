"""One metric for validation and then for the test; Lightning resets what is logged as an object in between.

Kind: metric object in the step
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
        self.mrr = RetrievalMRR()

    def shared_step(self, batch: Batch, stage: str) -> None:
        scores = self.model(batch["question"], batch["passages"])
        self.mrr.update(scores, batch["labels"], indexes=batch["question_id"][:, None].expand_as(scores))
        self.log(f"{stage}_mrr", self.mrr)

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        self.shared_step(batch, "val")

    def test_step(self, batch: Batch, batch_idx: int) -> None:
        self.shared_step(batch, "test")


def main(make_trainer: Callable[..., Trainer]) -> None:
    trainer, model = make_trainer(), Reranker()
    trainer.validate(model, DataLoader(passages(16), batch_size=4), verbose=False)
    trainer.test(model, DataLoader(passages(22, candidates=5), batch_size=4), verbose=False)
