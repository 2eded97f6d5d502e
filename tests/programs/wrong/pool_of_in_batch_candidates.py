"""In-batch retrieval: a caption is ranked among those of its batch, so the number hangs on the batch size.

Kind: depends on pool or weight
No rule: nothing in a log call or in rows tells that the candidates ought to be others
Pool: candidates are those of one rank's batch
"""

from collections.abc import Callable

import torch
from lightning.pytorch import LightningModule, Trainer
from torch.utils.data import DataLoader

from ..data import Batch, pairs
from ..models import DualEncoder


class ClipAccuracy(LightningModule):
    def __init__(self) -> None:
        super().__init__()
        self.model = DualEncoder()

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        similarity = self.model.similarity(batch["image"], batch["text"])
        hit = similarity.argmax(dim=1) == torch.arange(len(similarity))
        self.log("val_in_batch_acc", hit.float().mean(), sync_dist=True, prog_bar=True)

    def val_dataloader(self) -> DataLoader[Batch]:
        return DataLoader(pairs(36), batch_size=12 // self.trainer.world_size)


def main(make_trainer: Callable[..., Trainer]) -> None:
    make_trainer().validate(ClipAccuracy(), verbose=False)
