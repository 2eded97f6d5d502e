"""Unusual input and unusual runs: not faults of a rank, and no reason for another number."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torchmetrics.retrieval import RetrievalMRR

from tests.distributed.evaluate import guards, make_trainer, recorded_warnings
from tests.distributed.programs.data import Batch, rows_of

from .programs import Sound

Rows = tuple[Tensor, Tensor, Tensor]


def as_given(rows: Rows) -> Rows:
    return rows


@dataclass(frozen=True)
class Unusual:
    """Something unusual.

    Attributes:
        what: For the page.
        plain: What the program logs without a guard: "right", "wrong", or the name of an exception.
        change: Makes unusual rows of scores, relevance and ids.
        options: Of the metric.
        trainer: Of the trainer.
        method: How the trainer runs it.
        moves: Whether the metric is moved after every update.
    """

    what: str
    plain: str = "right"
    change: Callable[[Rows], Rows] = as_given
    options: tuple[tuple[str, Any], ...] = ()
    trainer: tuple[tuple[str, Any], ...] = ()
    method: str = "validate"
    moves: bool = False


def _scores(value: float) -> Callable[[Rows], Rows]:
    return lambda rows: (rows[0].index_fill(0, torch.tensor(1), value), *rows[1:])


def _score_dtype(dtype: torch.dtype) -> Callable[[Rows], Rows]:
    return lambda rows: (rows[0].to(dtype), *rows[1:])


def _target_dtype(dtype: torch.dtype) -> Callable[[Rows], Rows]:
    return lambda rows: (rows[0], rows[1].to(dtype), rows[2])


def _ids(change: Callable[[Tensor], Tensor]) -> Callable[[Rows], Rows]:
    return lambda rows: (*rows[:2], change(rows[2]))


def _strided(rows: Rows) -> Rows:
    scores, target, ids = (column.repeat_interleave(2)[::2] for column in rows)
    return scores, target, ids


UNUSUAL = {
    "nan": Unusual("scores that are NaN", "wrong", _scores(float("nan"))),
    "inf": Unusual("scores that are infinite", "wrong", _scores(float("inf"))),
    "minus-inf": Unusual("scores that are minus infinity", "wrong", _scores(-float("inf"))),
    "empty": Unusual("updates without rows", "ValueError", lambda rows: tuple(part[:0] for part in rows)),
    "int32-ids": Unusual("ids of type int32", "ValueError", _ids(lambda ids: ids.int())),
    "negative-ids": Unusual("negative ids", change=_ids(lambda ids: -1 - ids)),
    "large-ids": Unusual("ids above 2**40", change=_ids(lambda ids: ids + 2**40)),
    "far-ids": Unusual("ids far apart", change=_ids(lambda ids: ids * 7919 + 13)),
    "strided": Unusual("tensors that are not contiguous", change=_strided),
    "bool-target": Unusual("relevance of type bool", change=_target_dtype(torch.bool)),
    "int-target": Unusual("relevance of type int32", change=_target_dtype(torch.int32)),
    "float-target": Unusual("relevance of type float", change=_target_dtype(torch.float32)),
    "half": Unusual("scores in half precision", change=_score_dtype(torch.float16)),
    "bfloat16": Unusual("scores in bfloat16", change=_score_dtype(torch.bfloat16)),
    "double": Unusual("scores in double precision", change=_score_dtype(torch.float64)),
    "on-cpu": Unusual("`compute_on_cpu=True`", options=(("compute_on_cpu", True),)),
    "moved": Unusual("a metric moved after every update", moves=True),
    "limit": Unusual("`limit_val_batches=2`", "wrong", trainer=(("limit_val_batches", 2),)),
    "share": Unusual("`limit_val_batches=0.5`", "wrong", trainer=(("limit_val_batches", 0.5),)),
    "none": Unusual("`limit_val_batches=0`", "no number", trainer=(("limit_val_batches", 0),)),
    "fast": Unusual("`fast_dev_run=True`", "wrong", trainer=(("fast_dev_run", True),), method="fit"),
    "overfit": Unusual(
        "`overfit_batches=2`", "wrong", trainer=(("overfit_batches", 2), ("max_epochs", 1)), method="fit"
    ),
}


class Program(Sound):
    """Logs the metric as an object, of unusual rows."""

    def __init__(self, unusual: Unusual) -> None:
        self.unusual = unusual
        super().__init__()

    def make_metric(self) -> RetrievalMRR:
        return RetrievalMRR(**dict(self.unusual.options))

    def train_dataloader(self) -> Any:
        return self.val_dataloader()

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        scores, target, ids = self.unusual.change(rows_of(batch))
        self.metric.update(scores, target, indexes=ids)
        if self.unusual.moves:
            self.metric.to(torch.device("cpu", 0)).to("cpu")
        self.log("mrr", self.metric)


def run_all(mode: str) -> dict[str, dict[str, Any]]:
    """Run everything unusual on this rank, one after the other: number or exception, and what was found."""
    endings = {}
    for name, unusual in UNUSUAL.items():
        guard = guards(mode.replace("plain", "none"), {})
        trainer = make_trainer(guard, False, **dict(unusual.trainer))
        error, options = "", {"verbose": False} if unusual.method == "validate" else {}
        try:
            with recorded_warnings():
                getattr(trainer, unusual.method)(Program(unusual), **options)
        except ValueError as raised:
            error = f"{type(raised).__name__}: {raised}"
        number = trainer.callback_metrics.get("mrr")
        endings[name] = {
            "number": None if number is None else float(number),
            "error": error,
            "codes": sorted({finding.code for one in guard for finding in one.findings if finding.severity != "note"}),
        }
    return endings
