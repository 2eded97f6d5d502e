"""A BERT4Rec-like recommender: one positive among sampled candidates; sync_dist=True on a metric does nothing.

Kind: metric object in the step
"""

from collections.abc import Callable

from lightning.pytorch import LightningModule, Trainer
from torch.utils.data import DataLoader
from torchmetrics.retrieval import RetrievalHitRate, RetrievalNormalizedDCG

from ..data import Batch, sessions
from ..models import NextItem


class Bert4Rec(LightningModule):
    def __init__(self) -> None:
        super().__init__()
        self.model = NextItem()
        self.hit_rate = RetrievalHitRate(top_k=3)
        self.ndcg = RetrievalNormalizedDCG(top_k=3)

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        scores = self.model(batch["history"], batch["candidates"])
        target = batch["candidates"] == batch["next_item"][:, None]
        users = batch["user"][:, None].expand_as(scores)
        self.hit_rate.update(scores, target, indexes=users)
        self.ndcg.update(scores, target, indexes=users)
        self.log("HR@3", self.hit_rate, on_step=False, on_epoch=True, sync_dist=True, batch_size=len(users))
        self.log("NDCG@3", self.ndcg, on_step=False, on_epoch=True, sync_dist=True)

    def val_dataloader(self) -> DataLoader[Batch]:
        return DataLoader(sessions(26), batch_size=4)


def main(make_trainer: Callable[..., Trainer]) -> None:
    make_trainer().validate(Bert4Rec(), verbose=False)
