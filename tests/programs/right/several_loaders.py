"""Two benchmarks as two dataloaders, a metric for each, and names of their own.

Kind: metric object in the step
"""

from collections.abc import Callable

from lightning.pytorch import LightningModule, Trainer
from torch import nn
from torch.utils.data import DataLoader
from torchmetrics.retrieval import RetrievalNormalizedDCG

from ..data import Batch, passages
from ..models import DualEncoder

BENCHMARKS = ("msmarco", "nq")


class ZeroShotRetriever(LightningModule):
    def __init__(self) -> None:
        super().__init__()
        self.model = DualEncoder()
        self.ndcg = nn.ModuleList([RetrievalNormalizedDCG(top_k=3) for _ in BENCHMARKS])

    def validation_step(self, batch: Batch, batch_idx: int, dataloader_idx: int = 0) -> None:
        scores = self.model(batch["question"], batch["passages"])
        metric = self.ndcg[dataloader_idx]
        metric.update(scores, batch["labels"], indexes=batch["question_id"][:, None].expand_as(scores))
        self.log(f"{BENCHMARKS[dataloader_idx]}/ndcg@3", metric, add_dataloader_idx=False)
        self.log("margin", (scores.amax(dim=1) - scores.amin(dim=1)).max(), sync_dist=True, reduce_fx="max")

    def val_dataloader(self) -> list[DataLoader[Batch]]:
        return [DataLoader(passages(16), batch_size=4), DataLoader(passages(22, candidates=5), batch_size=4)]


def main(make_trainer: Callable[..., Trainer]) -> None:
    make_trainer().validate(ZeroShotRetriever(), verbose=False)
