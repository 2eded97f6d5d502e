"""A curve and the best recall at a precision, which come as tuples; padded rows are ignored by the metric.

Kind: compute() at the end of the epoch
"""

from collections.abc import Callable

from lightning.pytorch import LightningModule, Trainer
from torch.utils.data import DataLoader
from torchmetrics.retrieval import RetrievalPrecisionRecallCurve, RetrievalRecallAtFixedPrecision

from ..data import Batch, passages
from ..models import DualEncoder


class CurveOfRetriever(LightningModule):
    def __init__(self) -> None:
        super().__init__()
        self.model = DualEncoder()
        self.best = RetrievalRecallAtFixedPrecision(min_precision=0.3, ignore_index=-1)
        self.curve = RetrievalPrecisionRecallCurve(max_k=3, ignore_index=-1)

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        scores = self.model(batch["question"], batch["passages"])
        labels = batch["labels"].clone()
        labels[batch["question_id"] % 3 == 0, -1] = -1
        for metric in (self.best, self.curve):
            metric.update(scores, labels, indexes=batch["question_id"][:, None].expand_as(scores))

    def on_validation_epoch_end(self) -> None:
        recall, top_k = self.best.compute()
        precisions, recalls, _ = self.curve.compute()
        self.log("val_recall_at_p30", recall)
        self.log("val_k_at_p30", top_k.float())
        self.log_dict({"val_p@1": precisions[0], "val_r@3": recalls[2]}, sync_dist=True)
        self.best.reset()
        self.curve.reset()

    def val_dataloader(self) -> DataLoader[Batch]:
        return DataLoader(passages(22), batch_size=4)


def main(make_trainer: Callable[..., Trainer]) -> None:
    make_trainer().validate(CurveOfRetriever(), verbose=False)
