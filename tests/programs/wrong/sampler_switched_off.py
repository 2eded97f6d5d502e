"""use_distributed_sampler=False without a sampler of one's own: every rank sees all samples.

Kind: wrong sampler
"""

from collections.abc import Callable

from lightning.pytorch import LightningModule, Trainer
from torch.utils.data import DataLoader
from torchmetrics.retrieval import RetrievalMAP, RetrievalRecall

from ..data import Batch, passages
from ..models import DualEncoder


class DenseRetriever(LightningModule):
    def __init__(self) -> None:
        super().__init__()
        self.model = DualEncoder()
        self.recall, self.map = RetrievalRecall(top_k=2), RetrievalMAP()

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        scores = self.model(batch["question"], batch["passages"])
        ids = batch["question_id"][:, None].expand_as(scores)
        self.recall.update(scores, batch["labels"], indexes=ids)  # lint: missed:LRG201
        self.map.update(scores, batch["labels"], indexes=ids)  # lint: missed:LRG201
        self.log("val_recall@2", self.recall)  # expect: LRG201@2
        self.log("val_map", self.map)  # expect: LRG201@2

    def val_dataloader(self) -> DataLoader[Batch]:
        return DataLoader(passages(22), batch_size=4)


def main(make_trainer: Callable[..., Trainer]) -> None:
    make_trainer(use_distributed_sampler=False).validate(DenseRetriever(), verbose=False)
