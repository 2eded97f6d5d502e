"""A distributed sampler that overrides `__iter__` alone, so that the ranks see unequally many samples and none twice.

Kind: metric object in the step
"""

from collections.abc import Callable, Iterator

from lightning.pytorch import LightningModule, Trainer
from torch.utils.data import DataLoader, DistributedSampler
from torchmetrics.retrieval import RetrievalMRR

from ..data import Batch, passages
from ..models import DualEncoder


class InTurns(DistributedSampler[Batch]):
    def __iter__(self) -> Iterator[int]:
        return iter(range(self.rank, len(self.dataset), self.num_replicas))


class DenseRetriever(LightningModule):
    def __init__(self) -> None:
        super().__init__()
        self.model = DualEncoder()
        self.mrr = RetrievalMRR()

    def test_step(self, batch: Batch, batch_idx: int) -> None:
        scores = self.model(batch["question"], batch["passages"])
        self.mrr.update(scores, batch["labels"], indexes=batch["question_id"][:, None].expand_as(scores))
        self.log("test_mrr", self.mrr)

    def test_dataloader(self) -> DataLoader[Batch]:
        data = passages(23)
        sampler = InTurns(data, self.trainer.world_size, self.trainer.global_rank, shuffle=False)
        return DataLoader(data, batch_size=4, sampler=sampler)


def main(make_trainer: Callable[..., Trainer]) -> None:
    make_trainer(use_distributed_sampler=False).test(DenseRetriever(), verbose=False)
