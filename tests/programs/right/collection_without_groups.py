"""Two metrics of a collection that leave other rows out, each with a state of its own.

Kind: compute() at the end of the epoch
"""

from collections.abc import Callable

from lightning.pytorch import LightningModule, Trainer
from torch.utils.data import DataLoader
from torchmetrics import MetricCollection
from torchmetrics.retrieval import RetrievalNormalizedDCG

from ..data import Batch, Columns, passages
from ..models import DualEncoder


def judged_passages() -> Columns:
    """From the ninth question on a passage is judged to be half an answer."""
    columns = passages(22).columns
    grade = 2 * columns["labels"]
    grade[8:, 4] = 1
    return Columns(**{**columns, "labels": grade})


class GradedRetrieval(LightningModule):
    def __init__(self) -> None:
        super().__init__()
        self.model = DualEncoder()
        metrics = {"ndcg": RetrievalNormalizedDCG(), "ndcg_of_answers": RetrievalNormalizedDCG(ignore_index=1)}
        self.metrics = MetricCollection(metrics, compute_groups=False)

    def test_step(self, batch: Batch, batch_idx: int) -> None:
        scores = self.model(batch["question"], batch["passages"])
        self.metrics.update(scores, batch["labels"], indexes=batch["question_id"][:, None].expand_as(scores))

    def on_test_epoch_end(self) -> None:
        self.log_dict(self.metrics.compute())
        self.metrics.reset()


def main(make_trainer: Callable[..., Trainer]) -> None:
    make_trainer().test(GradedRetrieval(), DataLoader(judged_passages(), batch_size=4), verbose=False)
