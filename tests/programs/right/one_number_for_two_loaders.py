"""Two parts of a benchmark as two dataloaders that feed one metric, for one number over both at the end.

Kind: compute() at the end of the epoch
"""

from collections.abc import Callable

from lightning.pytorch import LightningModule, Trainer
from torch.utils.data import DataLoader
from torchmetrics.retrieval import RetrievalNormalizedDCG

from ..data import Batch, passages
from ..models import DualEncoder


class WholeBenchmark(LightningModule):
    def __init__(self) -> None:
        super().__init__()
        self.model = DualEncoder()
        self.ndcg = RetrievalNormalizedDCG(top_k=3)

    def validation_step(self, batch: Batch, batch_idx: int, dataloader_idx: int = 0) -> None:
        scores = self.model(batch["question"], batch["passages"])
        ids = batch["question_id"] + 1000 * dataloader_idx
        self.ndcg.update(scores, batch["labels"], indexes=ids[:, None].expand_as(scores))

    def on_validation_epoch_end(self) -> None:
        self.log("val_ndcg@3", self.ndcg.compute())
        self.ndcg.reset()

    def val_dataloader(self) -> list[DataLoader[Batch]]:
        return [DataLoader(passages(16), batch_size=4), DataLoader(passages(22, candidates=5), batch_size=4)]


def main(make_trainer: Callable[..., Trainer]) -> None:
    make_trainer().validate(WholeBenchmark(), verbose=False)
