"""A metric made in the step over the rows of one batch, averaged, while the rows of many users lie in several batches.

Kind: averages what may not be averaged
Pool: a metric of the step ranks the rows of its batch, and devices hold other batches
"""

from collections.abc import Callable

from lightning.pytorch import LightningModule, Trainer
from torch.utils.data import DataLoader
from torchmetrics.retrieval import RetrievalMAP

from ..data import Batch, clicks
from ..models import Recommender


class AdRanking(LightningModule):
    def __init__(self) -> None:
        super().__init__()
        self.model = Recommender()

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        scores = self.model(batch["user"], batch["item"])
        metric = RetrievalMAP(sync_on_compute=False)
        metric.update(scores, batch["clicked"], indexes=batch["user"])
        self.log("val_map", metric.compute(), sync_dist=True)  # expect: LRG302


def main(make_trainer: Callable[..., Trainer]) -> None:
    make_trainer().validate(AdRanking(), DataLoader(clicks(40), batch_size=12), verbose=False)
