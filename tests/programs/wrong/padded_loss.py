"""21 samples on two devices: the sampler repeats one, and a loss counts it twice.

Kind: one for each other rule
"""

from collections.abc import Callable

from lightning.pytorch import LightningModule, Trainer
from torch import nn
from torch.nn import functional
from torch.utils.data import DataLoader

from ..data import WIDTH, Batch, series


class Regressor(LightningModule):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(WIDTH, 1)

    def test_step(self, batch: Batch, batch_idx: int) -> None:
        loss = functional.l1_loss(self.layer(batch["x"]).squeeze(-1), batch["y"])
        self.log("test_loss", loss, sync_dist=True)  # expect: LRG403@2


def main(make_trainer: Callable[..., Trainer]) -> None:
    make_trainer().test(Regressor(), DataLoader(series(21), batch_size=4), verbose=False)
