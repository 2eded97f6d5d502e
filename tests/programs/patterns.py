"""11 ways in which public programs log an evaluation, with 21 samples: on two devices the sampler repeats one.

What each rank sees of a sample is the same whichever batch it comes in. Everything else is as people write it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import pytest
import torch
from lightning.pytorch import Callback, LightningModule
from lightning.pytorch.overrides.distributed import UnrepeatedDistributedSampler
from torch import Tensor
from torch.nn import functional
from torch.utils.data import DataLoader
from torchmetrics import MeanMetric
from torchmetrics.classification import BinaryAUROC, BinaryF1Score
from torchmetrics.functional.classification import binary_auroc
from torchmetrics.functional.retrieval import retrieval_reciprocal_rank
from torchmetrics.retrieval import RetrievalMRR

from tests.distributed.evaluate import Recorder, guards, make_trainer, recorded_warnings
from tests.distributed.harness import Pool

COUNT, BATCH, CANDIDATES = 21, 4, 5
_random = torch.Generator().manual_seed(21)
SCORES, LABELS = torch.rand(COUNT, generator=_random), (torch.rand(COUNT, generator=_random) > 0.6).long()
RANKED = torch.rand(COUNT, CANDIDATES, generator=_random)


class Pattern(LightningModule):
    """What all of them share: 21 samples, of which a step gets the numbers."""

    def val_dataloader(self) -> Any:
        return DataLoader(range(COUNT), batch_size=BATCH)

    def callbacks(self) -> list[Callback]:
        """The program's own."""
        return []


class BatchLoss(Pattern):
    """`self.log` of a batch's value, without `sync_dist`."""

    def validation_step(self, batch: Tensor, batch_idx: int) -> None:
        self.log("loss", functional.binary_cross_entropy(SCORES[batch], LABELS[batch].float()))


class SampleLosses(Pattern):
    """A `MeanMetric` of the values of samples."""

    def __init__(self) -> None:
        super().__init__()
        self.loss = MeanMetric()

    def validation_step(self, batch: Tensor, batch_idx: int) -> None:
        self.loss.update(functional.binary_cross_entropy(SCORES[batch], LABELS[batch].float(), reduction="none"))
        self.log("loss", self.loss)


class AurocObject(Pattern):
    """A `BinaryAUROC` object."""

    def __init__(self) -> None:
        super().__init__()
        self.auroc = BinaryAUROC()

    def validation_step(self, batch: Tensor, batch_idx: int) -> None:
        self.auroc.update(SCORES[batch], LABELS[batch])
        self.log("auroc", self.auroc)


class F1Forward(Pattern):
    """The value of `forward()` of a `BinaryF1Score`, in the step."""

    def __init__(self) -> None:
        super().__init__()
        self.f1 = BinaryF1Score()

    def validation_step(self, batch: Tensor, batch_idx: int) -> None:
        self.log("f1", self.f1(SCORES[batch], LABELS[batch]), sync_dist=True)


class FunctionalAuroc(Pattern):
    """The functional AUROC of each batch."""

    def validation_step(self, batch: Tensor, batch_idx: int) -> None:
        self.log("auroc", binary_auroc(SCORES[batch], LABELS[batch]), sync_dist=True)


class FedInHook(Pattern):
    """A metric that is fed in the epoch-end hook, with ids counted on the rank."""

    def __init__(self) -> None:
        super().__init__()
        self.mrr = RetrievalMRR()
        self.outputs: list[tuple[Tensor, Tensor]] = []

    def validation_step(self, batch: Tensor, batch_idx: int) -> None:
        self.outputs.append((RANKED[batch], functional.one_hot(batch % CANDIDATES, CANDIDATES)))

    def on_validation_epoch_end(self) -> None:
        scores, relevance = (torch.cat(part) for part in zip(*self.outputs, strict=True))
        ids = torch.arange(len(scores)).repeat_interleave(CANDIDATES)
        self.mrr.update(scores.flatten(), relevance.flatten(), indexes=ids)
        self.log("mrr", self.mrr.compute())
        self.mrr.reset()
        self.outputs.clear()


class RunningSums(Callback):
    """Keeps sums over the batches, and logs their ratio once."""

    def on_validation_epoch_start(self, trainer: Any, pl_module: LightningModule) -> None:
        self.total, self.count = 0.0, 0

    def on_validation_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, batch: Tensor, *args: Any) -> None:
        self.total += float((SCORES[batch] - LABELS[batch]).abs().sum())
        self.count += len(batch)

    def on_validation_epoch_end(self, trainer: Any, pl_module: LightningModule) -> None:
        self.log("error", self.total / self.count, sync_dist=True)


class SumsInCallback(Pattern):
    """A callback that keeps running sums and logs once."""

    def validation_step(self, batch: Tensor, batch_idx: int) -> None:
        pass

    def callbacks(self) -> list[Callback]:
        return [RunningSums()]


class WeightedMean(Pattern):
    """A `MeanMetric` of the values of samples, with weights of their own."""

    def __init__(self) -> None:
        super().__init__()
        self.score = MeanMetric()

    def validation_step(self, batch: Tensor, batch_idx: int) -> None:
        self.score.update(SCORES[batch], weight=1.0 + LABELS[batch])
        self.log("score", self.score)


class Unrepeated(AurocObject):
    """The sampler of Lightning that repeats nothing, so that ranks have unequal numbers of samples."""

    def val_dataloader(self) -> Any:
        if self.trainer.world_size == 1:
            return super().val_dataloader()
        sampler = UnrepeatedDistributedSampler(range(COUNT), shuffle=False)
        return DataLoader(range(COUNT), batch_size=1, sampler=sampler)


class OneQuery(Pattern):
    """A batch of queries, scored as one."""

    def validation_step(self, batch: Tensor, batch_idx: int) -> None:
        relevance = functional.one_hot(batch % CANDIDATES, CANDIDATES)
        self.log("mrr", retrieval_reciprocal_rank(RANKED[batch], relevance), sync_dist=True)


class TwoLoaders(Pattern):
    """One metric for two loaders."""

    def __init__(self) -> None:
        super().__init__()
        self.auroc = BinaryAUROC()

    def val_dataloader(self) -> Any:
        return [DataLoader(range(14), batch_size=BATCH), DataLoader(range(7, COUNT), batch_size=BATCH)]

    def validation_step(self, batch: Tensor, batch_idx: int, dataloader_idx: int) -> None:
        self.auroc.update(SCORES[batch], LABELS[batch])
        self.log("auroc", self.auroc)


PATTERNS: dict[str, type[Pattern]] = {
    one.__name__: one
    for one in (
        *(BatchLoss, SampleLosses, AurocObject, F1Forward, FunctionalAuroc, FedInHook, SumsInCallback, WeightedMean),
        *(Unrepeated, OneQuery, TwoLoaders),
    )
}


def run(name: str, mode: str) -> dict[str, Any]:
    """What this rank logs, and what the guard finds."""
    module = PATTERNS[name]()
    guard = guards(mode, {"log_findings": False})
    trainer = make_trainer([*module.callbacks(), *guard], Recorder())
    with recorded_warnings():
        trainer.validate(module, verbose=False)
    values = {key: float(value) for key, value in trainer.callback_metrics.items()}
    return {"values": values, "found": sorted({one.code for own in guard for one in own.findings})}


class Row(NamedTuple):
    """What one pattern shows.

    Attributes:
        summary: What it does.
        right: The numbers of one device, corrected where the program itself averages what may not be averaged.
        plain: The numbers of two devices without a guard.
        corrected: Those in correct mode.
        found: The codes that correct mode names, in notes too.
    """

    summary: str
    right: dict[str, float]
    plain: dict[str, float]
    corrected: dict[str, float]
    found: list[str]

    @property
    def is_right(self) -> bool:
        """Whether two devices show the numbers of one."""
        return self.corrected == pytest.approx(self.right, rel=1e-5)


def rows(pools: Mapping[int, Pool]) -> dict[str, Row]:
    """Every pattern by its name."""
    return {name: _row(pools, name) for name in PATTERNS}


def _row(pools: Mapping[int, Pool], name: str) -> Row:
    shown = []
    for world_size, mode in ((1, "correct"), (2, "none"), (2, "correct")):
        shown.append(pools[world_size].values(f"{__name__}:run", case=name, name=name, mode=mode)[0])
    one, plain, corrected = shown
    return Row(
        (PATTERNS[name].__doc__ or "").strip(), one["values"], plain["values"], corrected["values"], shown[2]["found"]
    )
