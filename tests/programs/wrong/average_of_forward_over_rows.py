"""A two-tower recommender that averages MAP over batches, while the rows of its few users lie in all of them.

Kind: averages what may not be averaged
Right form: two_tower_datamodule
Known miss: LRG302, because every batch holds nearly all users, as it would if ids restarted in each
Stays: the evidence is ambiguous
"""

from collections.abc import Callable

from lightning.pytorch import LightningModule, Trainer
from torch.utils.data import DataLoader
from torchmetrics.retrieval import RetrievalMAP

from ..data import Batch, clicks
from ..models import Recommender


class TwoTower(LightningModule):
    def __init__(self) -> None:
        super().__init__()
        self.model = Recommender()
        self.val_map = RetrievalMAP()

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        scores = self.model(batch["user"], batch["item"])
        value = self.val_map(scores, batch["clicked"], indexes=batch["user"])
        self.log("val_map", value, on_step=False, on_epoch=True, sync_dist=True)  # expect: LRG302

    def val_dataloader(self) -> DataLoader[Batch]:
        return DataLoader(clicks(12), batch_size=16)


def main(make_trainer: Callable[..., Trainer]) -> None:
    make_trainer().validate(TwoTower(), verbose=False)
