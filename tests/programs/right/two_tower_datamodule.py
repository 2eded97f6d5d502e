"""A two-tower recommender with a DataModule: clicks of a user lie in several batches and on several ranks.

Kind: compute() at the end of the epoch
"""

from collections.abc import Callable

from lightning.pytorch import LightningDataModule, LightningModule, Trainer
from torch.utils.data import DataLoader
from torchmetrics.retrieval import RetrievalMAP, RetrievalPrecision

from ..data import Batch, clicks
from ..models import Recommender


class Clicks(LightningDataModule):
    def __init__(self, batch_size: int = 16) -> None:
        super().__init__()
        self.batch_size = batch_size

    def setup(self, stage: str) -> None:
        self.val, self.test = clicks(12), clicks(17)

    def val_dataloader(self) -> DataLoader[Batch]:
        return DataLoader(self.val, batch_size=self.batch_size)

    def test_dataloader(self) -> DataLoader[Batch]:
        return DataLoader(self.test, batch_size=self.batch_size)


class TwoTower(LightningModule):
    def __init__(self) -> None:
        super().__init__()
        self.model = Recommender()
        self.val_map, self.test_map = RetrievalMAP(), RetrievalMAP()
        self.test_precision = RetrievalPrecision(top_k=3)

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        scores = self.model(batch["user"], batch["item"])
        self.val_map.update(scores, batch["clicked"], indexes=batch["user"])

    def on_validation_epoch_end(self) -> None:
        self.log("val_map", self.val_map.compute())
        self.val_map.reset()

    def test_step(self, batch: Batch, batch_idx: int) -> None:
        scores = self.model(batch["user"], batch["item"])
        self.test_map.update(scores, batch["clicked"], indexes=batch["user"])
        self.test_precision.update(scores, batch["clicked"], indexes=batch["user"])

    def on_test_epoch_end(self) -> None:
        self.log_dict({"test_map": self.test_map.compute(), "test_p@3": self.test_precision.compute()})


def main(make_trainer: Callable[..., Trainer]) -> None:
    trainer, model, data = make_trainer(), TwoTower(), Clicks()
    trainer.validate(model, datamodule=data, verbose=False)
    trainer.test(model, datamodule=data, verbose=False)
