"""A MetricCollection that is updated in the step, computed and reset at the end of the epoch.

Kind: compute() at the end of the epoch
"""

from collections.abc import Callable

from lightning.pytorch import LightningModule, Trainer
from torch.utils.data import DataLoader
from torchmetrics import MetricCollection
from torchmetrics.retrieval import RetrievalMAP, RetrievalMRR, RetrievalRecall

from ..data import Batch, sessions
from ..models import NextItem


class NextBasket(LightningModule):
    def __init__(self) -> None:
        super().__init__()
        self.model = NextItem()
        cuts = {f"recall@{k}": RetrievalRecall(top_k=k) for k in (1, 2, 5)}
        self.metrics = MetricCollection({"mrr": RetrievalMRR(), "map": RetrievalMAP(), **cuts}, prefix="test_")

    def test_step(self, batch: Batch, batch_idx: int) -> None:
        scores = self.model(batch["history"], batch["candidates"])
        target = batch["candidates"] == batch["next_item"][:, None]
        self.metrics.update(scores, target, indexes=batch["user"][:, None].expand_as(scores))

    def on_test_epoch_end(self) -> None:
        self.log_dict(self.metrics.compute())
        self.metrics.reset()


def main(make_trainer: Callable[..., Trainer]) -> None:
    make_trainer().test(NextBasket(), DataLoader(sessions(26), batch_size=4), verbose=False)
