"""Two benchmarks as two dataloaders that feed one metric: the second number counts the queries of both.

Kind: one for each other rule
Right form: metric_for_each_loader
"""

from collections.abc import Callable

from lightning.pytorch import LightningModule, Trainer
from torch.utils.data import DataLoader
from torchmetrics.retrieval import RetrievalNormalizedDCG

from ..data import Batch, passages
from ..models import DualEncoder


class ZeroShotRetriever(LightningModule):
    def __init__(self) -> None:
        super().__init__()
        self.model = DualEncoder()
        self.ndcg = RetrievalNormalizedDCG(top_k=3)

    def validation_step(self, batch: Batch, batch_idx: int, dataloader_idx: int = 0) -> None:
        scores = self.model(batch["question"], batch["passages"])
        ids = batch["question_id"] + 1000 * dataloader_idx
        self.ndcg.update(scores, batch["labels"], indexes=ids[:, None].expand_as(scores))
        self.log("val_ndcg@3", self.ndcg)  # expect: LRG404

    def val_dataloader(self) -> list[DataLoader[Batch]]:
        return [DataLoader(passages(16), batch_size=4), DataLoader(passages(22, candidates=5), batch_size=4)]


def main(make_trainer: Callable[..., Trainer]) -> None:
    make_trainer().validate(ZeroShotRetriever(), verbose=False)
