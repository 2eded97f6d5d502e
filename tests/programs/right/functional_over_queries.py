"""Question answering: a function of torchmetrics for each question, and Lightning's mean of their mean.

Kind: per-step value
"""

from collections.abc import Callable

import torch
from lightning.pytorch import LightningModule, Trainer
from torch.utils.data import DataLoader
from torchmetrics.functional.retrieval import retrieval_hit_rate, retrieval_reciprocal_rank

from ..data import Batch, passages
from ..models import CrossEncoder


class AnswerSelection(LightningModule):
    def __init__(self) -> None:
        super().__init__()
        self.model = CrossEncoder()

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        scores = self.model(batch["question"], batch["passages"])
        lists = list(zip(scores, batch["labels"], strict=True))
        mrr = torch.stack([retrieval_reciprocal_rank(score, label) for score, label in lists]).mean()
        hit = torch.stack([retrieval_hit_rate(score, label, top_k=1) for score, label in lists]).mean()
        self.log_dict({"val_mrr": mrr, "val_hit@1": hit}, sync_dist=True, batch_size=len(scores))

    def val_dataloader(self) -> DataLoader[Batch]:
        return DataLoader(passages(22), batch_size=4)


def main(make_trainer: Callable[..., Trainer]) -> None:
    make_trainer().validate(AnswerSelection(), verbose=False)
