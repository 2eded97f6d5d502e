"""A pointwise re-ranker over (user, item) rows: a query's rows come in several batches, and the metric joins them.

Kind: metric object in the step
"""

from collections.abc import Callable

from lightning.pytorch import LightningModule, Trainer
from torch.nn import functional
from torch.utils.data import DataLoader
from torchmetrics import MetricCollection
from torchmetrics.retrieval import RetrievalMAP, RetrievalNormalizedDCG, RetrievalRecall

from ..data import Batch, clicks
from ..models import Recommender


class PointwiseReranker(LightningModule):
    def __init__(self) -> None:
        super().__init__()
        self.model = Recommender()
        self.metrics = MetricCollection(
            [RetrievalMAP(), RetrievalNormalizedDCG(), RetrievalRecall(top_k=2)], prefix="test/"
        )

    def test_step(self, batch: Batch, batch_idx: int) -> None:
        probability = self.model(batch["user"], batch["item"])
        loss = functional.binary_cross_entropy(probability, batch["clicked"].float())
        self.metrics.update(probability, batch["clicked"], indexes=batch["user"])
        self.log("test/loss", loss, sync_dist=True)
        self.log_dict(self.metrics, on_step=False, on_epoch=True)


def main(make_trainer: Callable[..., Trainer]) -> None:
    make_trainer().test(PointwiseReranker(), DataLoader(clicks(13), batch_size=8), verbose=False)
