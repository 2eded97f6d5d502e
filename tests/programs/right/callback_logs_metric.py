"""A callback that logs at the end of the epoch what the module's metric holds.

Kind: compute() at the end of the epoch
"""

from collections.abc import Callable

from lightning.pytorch import Callback, LightningModule, Trainer
from torch.utils.data import DataLoader
from torchmetrics.retrieval import RetrievalMRR

from ..data import Batch, passages
from ..models import DualEncoder


class LogRetrieval(Callback):
    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        pl_module.log("retrieval/mrr", pl_module.mrr.compute())
        pl_module.mrr.reset()


class DenseRetriever(LightningModule):
    def __init__(self) -> None:
        super().__init__()
        self.model = DualEncoder()
        self.mrr = RetrievalMRR()

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        scores = self.model(batch["question"], batch["passages"])
        self.mrr.update(scores, batch["labels"], indexes=batch["question_id"][:, None].expand_as(scores))

    def val_dataloader(self) -> DataLoader[Batch]:
        return DataLoader(passages(22), batch_size=4)


def main(make_trainer: Callable[..., Trainer]) -> None:
    make_trainer(callbacks=[LogRetrieval()]).validate(DenseRetriever(), verbose=False)
