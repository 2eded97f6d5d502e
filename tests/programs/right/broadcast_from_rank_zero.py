"""All ranks gather their rankings, rank zero evaluates them with numpy, and tells the others the result.

Kind: manual all_gather
"""

from collections.abc import Callable

import numpy as np
import torch
from lightning.pytorch import LightningModule, Trainer
from torch import Tensor
from torch.utils.data import DataLoader

from ..data import Batch, passages
from ..models import CrossEncoder


def ndcg(scores: Tensor, labels: Tensor) -> float:
    """The mean nDCG of all lists."""
    order = scores.argsort(dim=1, descending=True)
    ranked = labels.gather(1, order).numpy()
    discount = 1 / np.log2(np.arange(ranked.shape[1]) + 2)
    ideal = np.sort(ranked, axis=1)[:, ::-1]
    return float(((ranked * discount).sum(axis=1) / (ideal * discount).sum(axis=1)).mean())


class NumpyEvaluation(LightningModule):
    def __init__(self) -> None:
        super().__init__()
        self.model = CrossEncoder()
        self.outputs: list[tuple[Tensor, Tensor]] = []

    def test_step(self, batch: Batch, batch_idx: int) -> None:
        self.outputs.append((self.model(batch["question"], batch["passages"]), batch["labels"]))

    def on_test_epoch_end(self) -> None:
        own = tuple(torch.cat(part) for part in zip(*self.outputs, strict=True))
        scores, labels = (part.flatten(0, -2) for part in self.all_gather(own))
        value = ndcg(scores, labels) if self.trainer.is_global_zero else None
        self.log("test_ndcg", self.trainer.strategy.broadcast(value))
        self.outputs.clear()


def main(make_trainer: Callable[..., Trainer]) -> None:
    make_trainer().test(NumpyEvaluation(), DataLoader(passages(22), batch_size=4), verbose=False)
