"""compute() on every rank; only then rank zero prints and logs the number, which is the same everywhere.

Kind: compute() at the end of the epoch
"""

from collections.abc import Callable

from lightning.pytorch import LightningModule, Trainer
from torch.utils.data import DataLoader
from torchmetrics.retrieval import RetrievalMRR

from ..data import Batch, passages
from ..models import DualEncoder


class PassageRanker(LightningModule):
    def __init__(self) -> None:
        super().__init__()
        self.model = DualEncoder()
        self.mrr = RetrievalMRR(empty_target_action="skip")

    def test_step(self, batch: Batch, batch_idx: int) -> None:
        scores = self.model(batch["question"], batch["passages"])
        self.mrr.update(scores, batch["labels"], indexes=batch["question_id"][:, None].expand_as(scores))

    def on_test_epoch_end(self) -> None:
        mrr = self.mrr.compute()
        if self.trainer.is_global_zero:
            print(f"MRR {mrr:.4f}")
        self.log("test_mrr", mrr, rank_zero_only=True)
        self.log("temperature", 0.07)
        self.mrr.reset()


def main(make_trainer: Callable[..., Trainer]) -> None:
    make_trainer().test(PassageRanker(), DataLoader(passages(22), batch_size=4), verbose=False)
