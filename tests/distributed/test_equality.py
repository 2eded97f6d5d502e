"""Every metric with every option, in real processes, against plain torchmetrics in one process that sees all rows."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from typing import Any, Literal

import numpy as np
import pytest
import torch
from lightning.pytorch import LightningModule
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from torchmetrics import Metric, retrieval
from torchmetrics.retrieval import (
    RetrievalFallOut,
    RetrievalHitRate,
    RetrievalMAP,
    RetrievalMRR,
    RetrievalNormalizedDCG,
    RetrievalPrecision,
    RetrievalPrecisionRecallCurve,
    RetrievalRecall,
    RetrievalRecallAtFixedPrecision,
    RetrievalRPrecision,
)

from .evaluate import Recorder, guards, make_trainer, recorded_warnings
from .harness import Outcome, Pool
from .installed import HAS_AGGREGATION, HAS_AUROC

pytestmark = pytest.mark.timeout(120)

Layout = Literal["interleaved", "shuffled", "split", "straddling", "empty-rank"]
LAYOUTS: tuple[Layout, ...] = ("interleaved", "shuffled", "split", "straddling", "empty-rank")
CUT = [
    RetrievalMRR,
    RetrievalMAP,
    RetrievalPrecision,
    RetrievalRecall,
    RetrievalFallOut,
    RetrievalHitRate,
    RetrievalNormalizedDCG,
]
if HAS_AUROC:
    CUT.append(retrieval.RetrievalAUROC)
QUERIES, IGNORED = 24, -1
Rows = tuple[Tensor, Tensor, Tensor, Tensor]  # ids, scores, relevance, grades


def spread(values: Tensor, dim: int | None = None) -> Tensor:
    """An aggregation of the user's own."""
    if dim is None:
        return values.max() - 0.5 * values.min()
    return values.max(dim=dim).values - 0.5 * values.min(dim=dim).values


AGGREGATIONS: tuple[dict[str, Any], ...] = tuple(
    {"aggregation": name} for name in ("mean", "median", "min", "max", spread)
)
if not HAS_AGGREGATION:
    AGGREGATIONS = ({},)
ACTIONS = ("neg", "pos", "skip")


def metrics() -> dict[str, Metric]:
    """Each class with every cut-off, empty-target action and aggregation at least once."""
    by_name: dict[str, Metric] = {}
    options = itertools.cycle(itertools.product(ACTIONS, AGGREGATIONS))
    for kind in CUT:
        for top_k, _ in itertools.product((None, 1, 3, 50), range(2)):
            action, aggregation = next(options)
            by_name[f"{kind.__name__}{len(by_name)}"] = kind(
                top_k=top_k, empty_target_action=action, ignore_index=IGNORED, **aggregation
            )
    for action, aggregation in itertools.product(ACTIONS, AGGREGATIONS):
        name = f"rprecision{len(by_name)}"
        by_name[name] = RetrievalRPrecision(empty_target_action=action, ignore_index=IGNORED, **aggregation)
    for top_k in (2, 50):
        by_name[f"adaptive{top_k}"] = RetrievalPrecision(top_k=top_k, adaptive_k=True, ignore_index=IGNORED)
    if HAS_AUROC:
        by_name["partial"] = retrieval.RetrievalAUROC(max_fpr=0.4, ignore_index=IGNORED)
    return by_name


def graded() -> dict[str, Metric]:
    """What takes grades."""
    return {f"graded{top_k}": RetrievalNormalizedDCG(top_k=top_k, ignore_index=IGNORED) for top_k in (None, 1, 4)}


def curves() -> dict[str, Metric]:
    """What has more than one number."""
    by_name: dict[str, Metric] = {}
    for max_k, adaptive, action in itertools.product((None, 1, 6), (False, True), ACTIONS):
        options = {"max_k": max_k, "adaptive_k": adaptive, "empty_target_action": action, "ignore_index": IGNORED}
        by_name[f"curve{len(by_name)}"] = RetrievalPrecisionRecallCurve(**options)
        by_name[f"fixed{len(by_name)}"] = RetrievalRecallAtFixedPrecision(min_precision=0.2, **options)
    return by_name


def all_rows(dtype: str) -> Rows:
    """Queries of unequal lengths, some without a relevant row, with scores that differ within each query."""
    rng = np.random.default_rng(3)
    sizes = rng.integers(1, 13, QUERIES)
    ids = np.repeat(rng.permutation(10 * QUERIES)[:QUERIES], sizes)
    score = np.concatenate([rng.permutation(40)[:size] for size in sizes]) / 32 - 0.3125
    relevance = (rng.random(len(ids)) < 0.4).astype(np.int64)
    relevance[rng.random(len(ids)) < 0.05] = IGNORED
    relevance[ids == ids[0]] = 0
    grades = np.where(relevance > 0, rng.integers(1, 5, len(ids)), relevance)
    scores = torch.from_numpy(score).to(getattr(torch, dtype))
    return torch.from_numpy(ids), scores, torch.from_numpy(relevance), torch.from_numpy(grades)


def batches(layout: Layout, rows: Rows, rank: int, world_size: int) -> list[Rows]:
    """What one rank sees: whole queries, or rows that stand anywhere."""
    rng = np.random.default_rng(5)
    ids = rows[0].numpy()
    order = {query: index for index, query in enumerate(dict.fromkeys(ids.tolist()))}
    number_of_row = np.array([order[query] for query in ids.tolist()])
    if layout == "interleaved":
        owner = number_of_row % world_size
    elif layout in ("shuffled", "empty-rank"):
        able = world_size - (layout == "empty-rank")
        owner = rng.integers(0, able, QUERIES)[number_of_row]
    elif layout == "split":
        owner = rng.integers(0, world_size, len(ids))
    else:  # one query over each border between two ranks
        owner = np.arange(len(ids)) * world_size // len(ids)
    step = number_of_row // 5 if layout != "split" else rng.integers(0, 4, len(ids))
    parts = []
    for number in np.unique(step):
        mine = torch.from_numpy((owner == rank) & (step == number))
        if mine.any():
            parts.append(tuple(column[mine] for column in rows))
    return parts


class Batches(Dataset[int]):
    """As many items as this rank has batches; at least one, which may hold nothing."""

    def __init__(self, count: int) -> None:
        self.count = count

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> int:
        return index


class Everything(LightningModule):
    """Logs the numbers as objects, and the curves when the epoch ends."""

    def __init__(self, layout: Layout, dtype: str, rank: int, world_size: int) -> None:
        super().__init__()
        self.numbers, self.grades = torch.nn.ModuleDict(metrics()), torch.nn.ModuleDict(graded())
        self.curves = torch.nn.ModuleDict(curves())
        self.parts = batches(layout, all_rows(dtype), rank, world_size)
        self.shown: dict[str, Any] = {}

    def val_dataloader(self) -> Any:
        return DataLoader(Batches(max(1, len(self.parts))), batch_size=1)

    def validation_step(self, batch: Tensor, batch_idx: int) -> None:
        for ids, scores, relevance, grades in self.parts[batch_idx : batch_idx + 1]:
            for metric in (*self.numbers.values(), *self.curves.values()):
                metric.update(scores, relevance, ids)
            for metric in self.grades.values():
                metric.update(scores, grades, ids)
        self.log_dict({**self.numbers, **self.grades})

    def on_validation_epoch_end(self) -> None:
        self.shown = {name: metric.compute() for name, metric in self.curves.items()}


def run(layout: Layout, dtype: str) -> dict[str, list[float]]:
    """All values on this rank."""
    import os

    module = Everything(layout, dtype, int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"]))
    trainer = make_trainer(guards("correct", {}), Recorder(), use_distributed_sampler=False)
    with recorded_warnings():
        trainer.validate(module, verbose=False)
    numbers = {name: [float(value)] for name, value in trainer.callback_metrics.items()}
    return numbers | dict(_flat(module.shown))


def _flat(values: Mapping[str, Any]) -> Iterator[tuple[str, list[float]]]:
    for name, value in values.items():
        parts = value if isinstance(value, tuple) else (value,)
        yield name, torch.cat([torch.as_tensor(part).reshape(-1).double() for part in parts]).tolist()


def reference(dtype: str) -> dict[str, list[float]]:
    """What plain torchmetrics makes of all rows."""
    ids, scores, relevance, grades = all_rows(dtype)
    all_metrics = {**metrics(), **curves(), **graded()}
    for name, metric in all_metrics.items():
        metric.update(scores, grades if name.startswith("graded") else relevance, ids)
    return dict(_flat({name: metric.compute() for name, metric in all_metrics.items()}))


def outcomes(pool: Pool, layout: Layout, dtype: str) -> list[Outcome]:
    results = pool.run(f"{__name__}:run", layout=layout, dtype=dtype, timeout=60.0)
    assert all(outcome.ok for outcome in results), "\n".join(map(str, results))
    return results


CASES = [(layout, "float32", 2) for layout in LAYOUTS] + [("split", dtype, 2) for dtype in ("float16", "bfloat16")]
CASES += [("split", "float32", 4), ("empty-rank", "float32", 4)]
FOR_THE_NIGHT = [(layout, "float32", 4) for layout in LAYOUTS] + [("split", "float64", 2)]
CASES += [pytest.param(*case, marks=pytest.mark.nightly) for case in FOR_THE_NIGHT if case not in CASES]


@pytest.mark.parametrize(("layout", "dtype", "world_size"), CASES)
def test_all_ranks_have_the_number_of_one_process(
    pools: Mapping[int, Pool], layout: Layout, dtype: str, world_size: int
) -> None:
    wanted = reference(dtype)
    for outcome in outcomes(pools[world_size], layout, dtype):
        holds_rows = layout != "empty-rank" or outcome.rank < world_size - 1
        for name, values in wanted.items():
            if holds_rows or not name.startswith(("curve", "fixed")):
                assert outcome.value[name] == pytest.approx(values, abs=1e-6), (name, outcome.rank)
