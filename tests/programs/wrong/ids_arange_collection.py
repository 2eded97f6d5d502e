"""A BERT4Rec-like recommender with a MetricCollection and ids that restart in every batch.

Kind: colliding ids
Right form: bert4rec_next_item
"""

from collections.abc import Callable

import torch
from lightning.pytorch import LightningModule, Trainer
from torch.utils.data import DataLoader
from torchmetrics import MetricCollection
from torchmetrics.retrieval import RetrievalHitRate, RetrievalNormalizedDCG

from ..data import Batch, sessions
from ..models import NextItem


class Bert4Rec(LightningModule):
    def __init__(self) -> None:
        super().__init__()
        self.model = NextItem()
        self.metrics = MetricCollection({"HR@3": RetrievalHitRate(top_k=3), "NDCG@3": RetrievalNormalizedDCG(top_k=3)})

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        scores = self.model(batch["history"], batch["candidates"])
        target = (batch["candidates"] == batch["next_item"][:, None]).long()
        rows = torch.arange(scores.size(0), device=self.device)[:, None].expand_as(scores)
        self.metrics.update(scores, target, indexes=rows)  # lint: LRG301
        self.log_dict(self.metrics, on_step=False, on_epoch=True, sync_dist=True)  # expect: LRG301

    def val_dataloader(self) -> DataLoader[Batch]:
        return DataLoader(sessions(26), batch_size=4)


def main(make_trainer: Callable[..., Trainer]) -> None:
    make_trainer().validate(Bert4Rec(), verbose=False)
