"""Programs with a fault, and what a rank does with one of them.

Every one evaluates 24 queries, which two, three and four ranks share without padding.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator, Mapping
from types import MappingProxyType
from typing import Any

import torch
from lightning.pytorch import LightningModule
from torch.utils.data import DataLoader, IterableDataset, Subset
from torchmetrics.retrieval import RetrievalMRR

from lightning_retrieval_guard import RetrievalGuard
from lightning_retrieval_guard.settings import TIMEOUT_VARIABLE
from lightning_retrieval_guard.watch.stage import StageRecord
from tests.distributed.evaluate import make_trainer, recorded_warnings
from tests.distributed.programs.data import Batch, queries, rows_of
from tests.lifecycle.programs import Trainable

from .quiet import quiet

COUNT, SIZE = 24, 3
FAULTY = 1
"""The rank that the fault is on, where it is on one."""

TIMEOUT = 2.0
"""Seconds that ranks of a case about time-outs wait for each other; other cases end long before theirs."""
LONG_TIMEOUT = 15.0


class OnPurpose(RuntimeError):
    """What a fault raises."""


def reference() -> float:
    """The number of one process."""
    metric = RetrievalMRR()
    for batch in DataLoader(queries(COUNT, empty=False), batch_size=SIZE):
        metric.update(*rows_of(batch))
    return float(metric.compute())


class Sound(Trainable, LightningModule):
    """No fault: the metric is logged as an object."""

    timeout = LONG_TIMEOUT
    trainer_options: Mapping[str, Any] = MappingProxyType({})

    def __init__(self) -> None:
        super().__init__()
        self.metric = self.make_metric()

    def make_metric(self) -> RetrievalMRR:
        return RetrievalMRR()

    def val_dataloader(self) -> Any:
        return DataLoader(queries(COUNT, empty=False), batch_size=SIZE)

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        if batch_idx == 1 and self.global_rank == FAULTY:
            self.fail()
        self.metric.update(*rows_of(batch))
        self.log("mrr", self.metric)

    def fail(self) -> None:
        """What happens on one rank in its second step."""


# --- batches ----------------------------------------------------------------------------------------------------


class NoBatchSized(Sound):
    """All queries on the other ranks; the sized loader of one is empty."""

    trainer_options = MappingProxyType({"use_distributed_sampler": False})

    def __init__(self) -> None:
        super().__init__()
        self.allow_zero_length_dataloader_with_multiple_devices = True

    def shares(self) -> list[range]:
        """The queries of every rank."""
        world = self.trainer.world_size
        able = [rank for rank in range(world) if rank != FAULTY]
        return [range(able.index(rank), COUNT, len(able)) if rank in able else range(0) for rank in range(world)]

    def val_dataloader(self) -> Any:
        data = Subset(queries(COUNT, empty=False), list(self.shares()[self.global_rank]))
        return DataLoader(data, batch_size=SIZE)


class Iterated(IterableDataset[Batch]):
    """Some queries, one after the other."""

    def __init__(self, numbers: range) -> None:
        self.numbers = numbers

    def __iter__(self) -> Iterator[Batch]:
        data = queries(COUNT, empty=False)
        yield from (data[number] for number in self.numbers)


class NoBatchIterable(NoBatchSized):
    """The same with an iterable loader, which does not know that it is empty."""

    def val_dataloader(self) -> Any:
        return DataLoader(Iterated(self.shares()[self.global_rank]), batch_size=SIZE)


class Uneven(NoBatchSized):
    """One rank has more batches than the others."""

    def shares(self) -> list[range]:
        world = self.trainer.world_size
        few = [range(2 * rank, 2 * rank + 2) for rank in range(world - 1)]
        return [*few, range(2 * (world - 1), COUNT)]


# --- a rank that fails ------------------------------------------------------------------------------------------


class RaisesInStep(Sound):
    def fail(self) -> None:
        raise OnPurpose("in a step")


class RaisesInUpdate(Sound):
    def fail(self) -> None:
        self.metric.update(torch.rand(2), torch.ones(2).long(), indexes=None)


class FailsToCompute(RetrievalMRR):
    """Cannot be computed on one rank."""

    def compute(self) -> torch.Tensor:
        if int(os.environ["RANK"]) == FAULTY:
            raise OnPurpose("in compute()")
        return super().compute()


class RaisesInCompute(Sound):
    def make_metric(self) -> RetrievalMRR:
        return FailsToCompute()


class KilledInStep(Sound):
    def fail(self) -> None:
        os.kill(os.getpid(), signal.SIGKILL)


class KilledInExchange(Sound):
    """One rank is killed when it is about to send to the others."""

    def on_validation_epoch_start(self) -> None:
        if self.global_rank == FAULTY:
            torch.distributed.all_gather = self.killed

    @staticmethod
    def killed(*_: Any, **__: Any) -> None:
        os.kill(os.getpid(), signal.SIGKILL)


class Sleeps(Sound):
    """One rank comes later than the others wait."""

    timeout = TIMEOUT

    def fail(self) -> None:
        time.sleep(2.5 * TIMEOUT)


class Interrupted(Sound):
    """Ctrl-C reaches every rank."""

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        super().validation_step(batch, batch_idx)
        if batch_idx == 1:
            raise KeyboardInterrupt


class InterruptedAlone(Sound):
    def fail(self) -> None:
        raise KeyboardInterrupt


# --- the guard itself -------------------------------------------------------------------------------------------


class GuardFails(Sound):
    """A part of the guard raises on one rank."""

    fails_everywhere = False

    def on_validation_start(self) -> None:
        if self.fails_everywhere or self.global_rank == FAULTY:
            self.original, StageRecord.start_batch = StageRecord.start_batch, self.broken

    def on_validation_end(self) -> None:
        if hasattr(self, "original"):
            StageRecord.start_batch = self.original

    @staticmethod
    def broken(*_: Any) -> None:
        raise OnPurpose("inside the guard")


class GuardFailsEverywhere(GuardFails):
    fails_everywhere = True


# --- what ranks do differently ----------------------------------------------------------------------------------


class ComputedAlone(Sound):
    """Rank zero alone computes the metric."""

    timeout = TIMEOUT

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        self.metric.update(*rows_of(batch))

    def on_validation_epoch_end(self) -> None:
        if self.trainer.is_global_zero:
            self.log("mrr", self.metric.compute(), rank_zero_only=True)


class FedAndComputedAlone(ComputedAlone):
    """Rank zero alone feeds and computes it."""

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        pass

    def on_validation_epoch_end(self) -> None:
        if self.trainer.is_global_zero:
            for batch in DataLoader(queries(COUNT, empty=False), batch_size=SIZE):
                self.metric.update(*rows_of(batch))
        super().on_validation_epoch_end()


class MissingKey(Sound):
    """One rank does not log a key that the others combine."""

    timeout = TIMEOUT

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        super().validation_step(batch, batch_idx)
        if self.global_rank != FAULTY:
            self.log("loss", batch["score"].mean(), sync_dist=True, batch_size=len(batch["query"]))


class MissingKeySilenced(MissingKey):
    """The same, and the rule that would say so is told not to."""

    guard_options = MappingProxyType({"ignore": ["LRG206"]})


class OtherOrder(Sound):
    """One rank logs two keys in another order."""

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        super().validation_step(batch, batch_idx)
        values = {"low": 0.1, "high": 0.9}
        for name in sorted(values, reverse=self.global_rank == FAULTY):
            self.log(name, torch.tensor(values[name]), sync_dist=True, batch_size=1)

    def on_validation_end(self) -> None:
        low = float(self.trainer.callback_metrics["low"])
        if abs(low - 0.1) > 1e-6:  # shown as a wrong number
            self.trainer.callback_metrics["mrr"] = torch.tensor(low)


class WeightSilencedAlone(Sound):
    """A constant batch size is silenced on one rank alone."""

    guard: RetrievalGuard | None = None

    def val_dataloader(self) -> Any:
        return DataLoader(queries(COUNT, empty=False), batch_size=5)

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        super().validation_step(batch, batch_idx)
        if self.guard is not None and self.global_rank == FAULTY:
            with quiet(self.guard, "LRG1"):
                self.log_loss(batch)
        else:
            self.log_loss(batch)

    def log_loss(self, batch: Batch) -> None:
        self.log("loss", batch["score"].mean(), sync_dist=True, batch_size=5)


PROGRAMS: dict[str, Callable[[], Sound]] = {
    program.__name__: program
    for program in list(globals().values())
    if isinstance(program, type) and issubclass(program, Sound)
}


def run(program: str, mode: str) -> dict[str, Any]:
    """Validate on this rank: the number, and what the guard found above note."""
    module = PROGRAMS[program]()
    options = getattr(module, "guard_options", {})
    guard = [RetrievalGuard(mode, **options)] if mode != "plain" else []
    if hasattr(module, "guard"):
        module.guard = guard[0] if guard else None
    os.environ[TIMEOUT_VARIABLE] = str(module.timeout)
    all_gather = torch.distributed.all_gather
    try:
        trainer = make_trainer(guard, False, **module.trainer_options)
        with recorded_warnings():
            trainer.validate(module, verbose=False)
    finally:
        del os.environ[TIMEOUT_VARIABLE]
        torch.distributed.all_gather = all_gather
        GuardFails.on_validation_end(module)
    number = trainer.callback_metrics.get("mrr")
    codes = {finding.code for one in guard for finding in one.findings if finding.severity != "note"}
    return {"number": None if number is None else float(number), "codes": sorted(codes)}
