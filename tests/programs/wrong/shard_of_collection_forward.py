"""A recommender that logs the dictionary which a MetricCollection's forward() returns.

Kind: rank 0's shard only
"""

from collections.abc import Callable

from lightning.pytorch import LightningModule, Trainer
from torch.utils.data import DataLoader
from torchmetrics import MetricCollection
from torchmetrics.retrieval import RetrievalHitRate, RetrievalMRR

from ..data import Batch, sessions
from ..models import NextItem


class SequentialRecommender(LightningModule):
    def __init__(self) -> None:
        super().__init__()
        self.model = NextItem()
        self.metrics = MetricCollection({"hit@3": RetrievalHitRate(top_k=3), "mrr": RetrievalMRR()}, prefix="test_")

    def test_step(self, batch: Batch, batch_idx: int) -> None:
        scores = self.model(batch["history"], batch["candidates"])
        target = batch["candidates"] == batch["next_item"][:, None]
        values = self.metrics(scores, target, indexes=batch["user"][:, None].expand_as(scores))
        self.log_dict(values, on_step=False, on_epoch=True)  # expect: LRG203@2  # lint: LRG203

    def test_dataloader(self) -> DataLoader[Batch]:
        return DataLoader(sessions(20), batch_size=4)


def main(make_trainer: Callable[..., Trainer]) -> None:
    make_trainer().test(SequentialRecommender(), verbose=False)
