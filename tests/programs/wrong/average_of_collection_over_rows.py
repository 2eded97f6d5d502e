"""A pointwise re-ranker that averages the values of a MetricCollection over batches of mixed queries.

Kind: averages what may not be averaged
Right form: cross_encoder_rows
"""

from collections.abc import Callable

from lightning.pytorch import LightningModule, Trainer
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
        values = self.metrics(probability, batch["clicked"], indexes=batch["user"])
        self.log_dict(values, sync_dist=True, batch_size=len(probability))  # expect: LRG302


def main(make_trainer: Callable[..., Trainer]) -> None:
    make_trainer().test(PointwiseReranker(), DataLoader(clicks(13), batch_size=8), verbose=False)
