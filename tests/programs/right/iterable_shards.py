"""An IterableDataset that gives every rank its part of the queries.

Kind: metric object in the step
"""

from collections.abc import Callable, Iterator

import torch.distributed as dist
from lightning.pytorch import LightningModule, Trainer
from torch.utils.data import DataLoader, IterableDataset
from torchmetrics.retrieval import RetrievalRecall

from ..data import Batch, passages
from ..models import DualEncoder


class Stream(IterableDataset[Batch]):
    def __init__(self, count: int) -> None:
        self.questions = passages(count)

    def __iter__(self) -> Iterator[Batch]:
        rank, ranks = (dist.get_rank(), dist.get_world_size()) if dist.is_initialized() else (0, 1)
        for index in range(rank, len(self.questions), ranks):
            yield self.questions[index]


class StreamedRetriever(LightningModule):
    def __init__(self) -> None:
        super().__init__()
        self.model = DualEncoder()
        self.recall = RetrievalRecall(top_k=3)

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        scores = self.model(batch["question"], batch["passages"])
        self.recall.update(scores, batch["labels"], indexes=batch["question_id"][:, None].expand_as(scores))
        self.log("val_recall@3", self.recall, prog_bar=True)

    def val_dataloader(self) -> DataLoader[Batch]:
        return DataLoader(Stream(23), batch_size=4)


def main(make_trainer: Callable[..., Trainer]) -> None:
    make_trainer().validate(StreamedRetriever(), verbose=False)
