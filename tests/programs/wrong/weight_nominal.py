"""The batch size of the configuration is passed to every log call, although the last batch is shorter.

Kind: depends on pool or weight
Right form: functional_over_queries
"""

from collections.abc import Callable

import torch
from lightning.pytorch import LightningModule, Trainer
from torch.utils.data import DataLoader
from torchmetrics.functional.retrieval import retrieval_hit_rate, retrieval_reciprocal_rank

from ..data import Batch, passages
from ..models import CrossEncoder


class AnswerSelection(LightningModule):
    def __init__(self, batch_size: int = 4) -> None:
        super().__init__()
        self.save_hyperparameters()
        self.model = CrossEncoder()

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        scores = self.model(batch["question"], batch["passages"])
        lists = list(zip(scores, batch["labels"], strict=True))
        mrr = torch.stack([retrieval_reciprocal_rank(score, label) for score, label in lists]).mean()
        hit = torch.stack([retrieval_hit_rate(score, label, top_k=1) for score, label in lists]).mean()
        size = self.hparams.batch_size
        self.log_dict({"val_mrr": mrr, "val_hit@1": hit}, sync_dist=True, batch_size=size)  # expect: LRG102

    def val_dataloader(self) -> DataLoader[Batch]:
        return DataLoader(passages(22), batch_size=self.hparams.batch_size)


def main(make_trainer: Callable[..., Trainer]) -> None:
    make_trainer().validate(AnswerSelection(), verbose=False)
