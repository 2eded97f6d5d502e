"""A loss for each language, whose first batches come in another order on each rank.

Kind: one for each other rule
"""

from collections.abc import Callable

from lightning.pytorch import LightningModule, Trainer
from torch import nn
from torch.nn import functional
from torch.utils.data import DataLoader

from ..data import WIDTH, Batch, series

LANGUAGES = ("en", "de")


class Multilingual(LightningModule):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(WIDTH, 1)

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        loss = functional.l1_loss(self.layer(batch["x"]).squeeze(-1), batch["y"])
        place = self.global_rank + batch_idx * self.trainer.world_size
        language = LANGUAGES[(place + place // 2) % 2]
        self.log(f"val_loss_{language}", loss, sync_dist=True)  # expect: LRG206@2

    def val_dataloader(self) -> DataLoader[Batch]:
        return DataLoader(series(16), batch_size=1)


def main(make_trainer: Callable[..., Trainer]) -> None:
    make_trainer().validate(Multilingual(), verbose=False)
