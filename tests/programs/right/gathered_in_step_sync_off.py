"""In-batch candidates of all ranks, gathered in the step by hand, in a metric that does not gather them again.

Kind: manual all_gather
"""

from collections.abc import Callable

import torch
from lightning.pytorch import LightningModule, Trainer
from torch.utils.data import DataLoader
from torchmetrics.retrieval import RetrievalRecall

from ..data import Batch, pairs
from ..models import DualEncoder


class ClipValidation(LightningModule):
    global_batch = 12

    def __init__(self) -> None:
        super().__init__()
        self.model = DualEncoder()
        self.recall = RetrievalRecall(top_k=2, sync_on_compute=False)

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        gathered = self.all_gather({key: batch[key] for key in ("image", "text", "index")})
        image, text = (gathered[key].reshape(-1, batch[key].shape[-1]) for key in ("image", "text"))
        scores = self.model.similarity(image, text)
        ids = gathered["index"].reshape(-1, 1).expand_as(scores)
        self.recall.update(scores, torch.eye(len(scores), dtype=torch.long), indexes=ids)
        self.log("val_recall@2", self.recall)

    def val_dataloader(self) -> DataLoader[Batch]:
        return DataLoader(pairs(36), batch_size=self.global_batch // self.trainer.world_size)


def main(make_trainer: Callable[..., Trainer]) -> None:
    make_trainer().validate(ClipValidation(), verbose=False)
