"""sync_on_compute=False to be rid of a hang, and compute() at the end of the epoch.

Kind: rank 0's shard only
"""

from collections.abc import Callable

from lightning.pytorch import LightningModule, Trainer
from torch.utils.data import DataLoader
from torchmetrics.retrieval import RetrievalMRR, RetrievalPrecision

from ..data import Batch, clicks
from ..models import Recommender


class ClickRanker(LightningModule):
    def __init__(self) -> None:
        super().__init__()
        self.model = Recommender()
        self.mrr = RetrievalMRR(sync_on_compute=False)
        self.precision = RetrievalPrecision(top_k=2, sync_on_compute=False)

    def test_step(self, batch: Batch, batch_idx: int) -> None:
        scores = self.model(batch["user"], batch["item"])
        self.mrr.update(scores, batch["clicked"], indexes=batch["user"])
        self.precision.update(scores, batch["clicked"], indexes=batch["user"])

    def on_test_epoch_end(self) -> None:
        self.log("test_mrr", self.mrr.compute())  # expect: LRG203@2  # lint: LRG203
        self.log("test_p@2", self.precision.compute())  # expect: LRG203@2  # lint: LRG203


def main(make_trainer: Callable[..., Trainer]) -> None:
    make_trainer().test(ClickRanker(), DataLoader(clicks(14), batch_size=16), verbose=False)
