"""Questions without an answer are skipped, yet each batch's mean weighs as many samples as it has.

Kind: averages what may not be averaged
Right form: skipped_questions
"""

from collections.abc import Callable

from lightning.pytorch import LightningModule, Trainer
from torch.utils.data import DataLoader
from torchmetrics.retrieval import RetrievalRecall

from ..data import Batch, passages
from ..models import CrossEncoder


class OpenDomainQA(LightningModule):
    def __init__(self) -> None:
        super().__init__()
        self.model = CrossEncoder()
        self.recall = RetrievalRecall(top_k=2, empty_target_action="skip")

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        scores = self.model(batch["question"], batch["passages"])
        labels = batch["labels"] * (batch["question_id"] % 5 > 1)[:, None]
        value = self.recall(scores, labels, indexes=batch["question_id"][:, None].expand_as(scores))
        self.log("val_recall@2", value, sync_dist=True)  # expect: LRG302  # lint: missed:LRG302

    def val_dataloader(self) -> DataLoader[Batch]:
        return DataLoader(passages(22), batch_size=4)


def main(make_trainer: Callable[..., Trainer]) -> None:
    make_trainer().validate(OpenDomainQA(), verbose=False)
