"""A function of torchmetrics that scores all questions of a batch as one.

Kind: averages what may not be averaged
Right form: dense_retriever_metric_object
Stays: only the program knows which rows belong to a question
"""

from collections.abc import Callable

import torch
from lightning.pytorch import LightningModule, Trainer
from torch.utils.data import DataLoader
from torchmetrics.functional.retrieval import retrieval_reciprocal_rank as mrr

from ..data import Batch, passages
from ..models import DualEncoder


class AnswerSelection(LightningModule):
    def __init__(self) -> None:
        super().__init__()
        self.model = DualEncoder()

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        question, answers = self.model.encode_query(batch["question"]), self.model.encode_document(batch["passages"])
        scores = torch.einsum("bf,bpf->bp", question, answers)
        size = float(len(question))
        labels = batch["labels"]
        self.log("val_mrr", mrr(scores, labels), sync_dist=True, batch_size=size)  # expect: LRG306  # lint: LRG306

    def val_dataloader(self) -> DataLoader[Batch]:
        return DataLoader(passages(22), batch_size=4)


def main(make_trainer: Callable[..., Trainer]) -> None:
    make_trainer().validate(AnswerSelection(), verbose=False)
