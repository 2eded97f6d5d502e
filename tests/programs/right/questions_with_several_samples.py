"""Question and one positive with its negatives as a sample: a question with two positives comes again later on.

Kind: metric object in the step
"""

from collections.abc import Callable

import torch
from lightning.pytorch import LightningModule, Trainer
from torch.utils.data import DataLoader, TensorDataset
from torchmetrics.retrieval import RetrievalRecall

from ..data import passages
from ..models import DualEncoder


def samples_of_positives(questions: int) -> TensorDataset:
    """All questions with the first half of their candidates, then all with the second."""
    columns = passages(questions, candidates=8).columns
    target = torch.zeros(questions, 4, dtype=torch.long)
    target[:, 0] = 1
    halves = [columns["passages"][:, half] for half in (slice(0, 4), slice(4, 8))]
    ids = columns["question_id"]
    return TensorDataset(columns["question"].repeat(2, 1), torch.cat(halves), target.repeat(2, 1), ids.repeat(2))


class DprValidation(LightningModule):
    def __init__(self) -> None:
        super().__init__()
        self.model = DualEncoder()
        self.recall = RetrievalRecall(top_k=3)

    def validation_step(self, batch: list[torch.Tensor], batch_idx: int) -> None:
        question, candidates, target, question_id = batch
        scores = self.model(question, candidates)
        self.recall.update(scores, target, indexes=question_id[:, None].expand_as(scores))
        self.log("val_recall@3", self.recall)

    def val_dataloader(self) -> DataLoader[list[torch.Tensor]]:
        return DataLoader(samples_of_positives(14), batch_size=4)


def main(make_trainer: Callable[..., Trainer]) -> None:
    make_trainer().validate(DprValidation(), verbose=False)
