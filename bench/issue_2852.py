"""The program of torchmetrics issue 2852: four metrics made, filled with gathered rows and computed in every step."""

from __future__ import annotations

from typing import Any

import torch
from lightning.pytorch import LightningModule
from torch import Tensor
from torch.utils.data import DataLoader, TensorDataset
from torchmetrics.retrieval import RetrievalMRR, RetrievalNormalizedDCG, RetrievalRecall

from bench.collectives import Meter
from bench.declare import Bench, Figure, Line, Result, Scale, at_most
from bench.epochs import OWN, plain_dict, validate
from bench.ranks import ranks
from bench.turns import medians, ratio

WORLD_SIZE = 2
BATCH, WIDTH = 32, 64


class Pairs(LightningModule):
    """Queries and documents in pairs; every document of the global batch is a candidate."""

    def __init__(self, steps: int, meter: Meter) -> None:
        super().__init__()
        self.steps = steps
        self.meter = meter

    def val_dataloader(self) -> DataLoader[Any]:
        random = torch.Generator().manual_seed(7)
        query = torch.rand(self.steps * BATCH * WORLD_SIZE, WIDTH, generator=random)
        document = query + 0.8 * torch.rand(query.shape, generator=random)
        return DataLoader(TensorDataset(query, document), batch_size=BATCH)

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        query, document = (self.gathered(part) for part in batch)
        scores = torch.nn.functional.normalize(query) @ torch.nn.functional.normalize(document).T
        target = torch.eye(len(scores), dtype=torch.long)
        ids = torch.arange(len(scores))[:, None].expand_as(scores)
        metrics = {
            "mrr": RetrievalMRR(),
            "recall@1": RetrievalRecall(top_k=1),
            "recall@5": RetrievalRecall(top_k=5),
            "ndcg": RetrievalNormalizedDCG(),
        }
        for name, metric in metrics.items():
            metric.update(scores, target, indexes=ids)
            self.log(name, metric.compute(), batch_size=BATCH * WORLD_SIZE, sync_dist=True)

    def gathered(self, part: Tensor) -> Tensor:
        """The same tensor of all ranks; what the program itself sends is counted apart."""
        phase, self.meter.phase = self.meter.phase, OWN
        whole = self.all_gather(part)
        self.meter.phase = phase
        assert isinstance(whole, Tensor)
        return whole.flatten(0, 1)


def evaluate(steps: int, mode: str) -> dict[str, Any]:
    """What a rank does."""
    meter = Meter()
    return plain_dict(validate(Pairs(steps, meter), meter, mode))


def run(scale: Scale) -> Result:
    steps = scale.pick(50, 6)
    seconds: dict[str, list[float]] = {"plain": [], "warn": [], "correct": []}
    counted: dict[str, int] = {}
    with ranks(WORLD_SIZE) as call:
        for mode in seconds:
            call(evaluate, steps=2, mode=mode)
        for _ in range(scale.pick(5, 1)):
            for mode, taken in seconds.items():
                epochs = call(evaluate, steps=steps, mode=mode)
                taken.append(max(epoch["seconds"] for epoch in epochs))
                counted[mode] = epochs[0]["step_collectives"]
                ended = len(epochs[0]["end_collectives"])
    figures = {
        "step-collectives": Figure(counted["correct"] - counted["plain"]),
        "end-collectives": Figure(ended),
        "warn": ratio(seconds["warn"], seconds["plain"]),
        "correct": ratio(seconds["correct"], seconds["plain"]),
    }
    return Result(figures, {"seconds": medians(seconds), "step collectives": counted, "steps": steps})


LINES = {
    "step-collectives": Line("#2852, W=2: collectives in steps, correct beyond plain", at_most(0), ""),
    "end-collectives": Line("#2852, W=2: collectives after the last step, correct", at_most(4), ""),
    "warn": Line("#2852, W=2: whole epoch, warn / plain", at_most(1.05)),
    "correct": Line("#2852, W=2: whole epoch, correct / plain", at_most(0.4)),
}
BENCH = Bench("issue-2852", LINES, run)
