"""A counter on the module numbers the queries that this rank has seen.

Kind: colliding ids
"""

from collections.abc import Callable

import torch
from lightning.pytorch import LightningModule, Trainer
from torch.utils.data import DataLoader
from torchmetrics.retrieval import RetrievalHitRate

from ..data import Batch, passages
from ..models import CrossEncoder


class QuestionAnswering(LightningModule):
    def __init__(self) -> None:
        super().__init__()
        self.model = CrossEncoder()
        self.hit = RetrievalHitRate(top_k=1)
        self.seen = 0

    def on_validation_epoch_start(self) -> None:
        self.seen = 0

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        scores = self.model(batch["question"], batch["passages"])
        indexes = torch.arange(self.seen, self.seen + len(scores))
        self.seen += len(scores)
        self.hit.update(scores, batch["labels"], indexes=indexes[:, None].expand_as(scores))  # lint: LRG301
        self.log("val_hit@1", self.hit)  # expect: LRG301@2

    def val_dataloader(self) -> DataLoader[Batch]:
        return DataLoader(passages(22), batch_size=4)


def main(make_trainer: Callable[..., Trainer]) -> None:
    make_trainer().validate(QuestionAnswering(), verbose=False)
