"""Raw logits as scores: relevant rows at or below zero count as missed in MRR and MAP.

Kind: one for each other rule
"""

from collections.abc import Callable

from lightning.pytorch import LightningModule, Trainer
from torch.utils.data import DataLoader
from torchmetrics.retrieval import RetrievalHitRate, RetrievalMAP, RetrievalMRR

from ..data import Batch, passages
from ..models import CrossEncoder


class LogitReranker(LightningModule):
    def __init__(self) -> None:
        super().__init__()
        self.model = CrossEncoder()
        self.mrr, self.map, self.hit = RetrievalMRR(), RetrievalMAP(), RetrievalHitRate(top_k=1)

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        logits = self.model(batch["question"], batch["passages"]).logit()
        ids = batch["question_id"][:, None].expand_as(logits)
        for metric in (self.mrr, self.map, self.hit):
            metric.update(logits, batch["labels"], indexes=ids)
        self.log("val_mrr", self.mrr)  # expect: LRG303
        self.log("val_map", self.map)  # expect: LRG303
        self.log("val_hit@1", self.hit)

    def val_dataloader(self) -> DataLoader[Batch]:
        return DataLoader(passages(22), batch_size=4)


def main(make_trainer: Callable[..., Trainer]) -> None:
    make_trainer().validate(LogitReranker(), verbose=False)
