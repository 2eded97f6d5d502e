"""Thousands of epochs with the guard, and what grows while they run; nothing may.

    python -m tests.soak [--epochs 2000] [--processes 2]

One half of the epochs is one run; the other half are runs of a few epochs each, in one process, with the same guards.
"""

from __future__ import annotations

import argparse
import gc
import os
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from lightning.pytorch import Callback, LightningModule
from torch import Tensor
from torch.utils.data import DataLoader, TensorDataset
from torchmetrics import Metric
from torchmetrics.retrieval import RetrievalMRR, RetrievalRecall

from lightning_retrieval_guard import RetrievalGuard
from lightning_retrieval_guard.findings import Numbers
from lightning_retrieval_guard.report.document import EpochNumbers
from tests.distributed.evaluate import make_trainer, recorded_warnings
from tests.distributed.harness import Pool
from tests.lifecycle.traces import is_ours, marks_on, owners_of

EPOCHS_OF_A_SHORT_RUN = 5
MODES = ("warn", "correct")
# When is measured: after warming up, in the middle, at the end. What grows does so from each to the next.
MOMENTS = (0.2, 0.6, 1.0)
# Memory that may come between two moments: what the allocator keeps differs from time to time.
MEBIBYTES = 4.0


@dataclass(frozen=True)
class Usage:
    """What a process uses; of the guard only what it made, not what the user did."""

    memory: float
    files: int
    threads: int
    groups: int
    patched: int
    objects: int
    tensors: int

    @classmethod
    def now(cls, trainer: Any, module: Any) -> Usage:
        gc.collect()
        things = gc.get_objects()
        pages = int(Path("/proc/self/statm").read_text().split()[1])
        return cls(
            memory=pages * os.sysconf("SC_PAGE_SIZE") / 2**20,
            files=len(os.listdir("/proc/self/fd")),
            threads=len(os.listdir("/proc/self/task")),
            groups=len(dist.distributed_c10d._world.pg_map),
            patched=len(
                {mark for owner in owners_of(trainer, module) if not is_ours(owner) for mark in marks_on(owner)}
            ),
            # the report has a history of every key, one number an epoch
            objects=sum(is_ours(thing) and not isinstance(thing, EpochNumbers | Numbers) for thing in things),
            tensors=sum(Tensor in type(thing).__mro__ for thing in things),
        )


ROWS = {
    "memory": "resident memory, MiB",
    "files": "open files",
    "threads": "threads",
    "groups": "process groups",
    "patched": "patched attributes",
    "objects": "objects of the guard",
    "tensors": "tensors",
}


class Tiny(LightningModule):
    """Two batches of validation that log in each way; query ids restart, so that there is something to say."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(1))
        self.mrr, self.recall = RetrievalMRR(), RetrievalRecall(top_k=2)

    def training_step(self, batch: list[Tensor], batch_idx: int) -> Tensor:
        loss = (self.weight * batch[0]).mean()
        self.log("loss", loss)
        return loss

    def validation_step(self, batch: list[Tensor], batch_idx: int) -> None:
        scores, target = batch
        ids = torch.arange(len(scores))[:, None].expand_as(scores)
        self.mrr.update(scores, target, ids)
        made: Metric = RetrievalMRR()
        made.update(scores, target, ids)
        self.log("object", self.mrr)
        self.log("forward", self.recall(scores, target, ids), sync_dist=True, batch_size=len(scores))
        self.log("made", made.compute(), batch_size=len(scores))

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.1)

    def train_dataloader(self) -> Any:
        return self._loader(2)

    def val_dataloader(self) -> Any:
        return self._loader(4)

    def _loader(self, batch_size: int) -> Any:
        scores = torch.rand(16, 5, generator=torch.Generator().manual_seed(0)) + 0.1
        return DataLoader(TensorDataset(scores, torch.eye(16, 5, dtype=torch.long)), batch_size=batch_size)


class Measures(Callback):
    """Measures at the end of some validations."""

    def __init__(self, epochs: set[int]) -> None:
        self.epochs = epochs
        self.seen: list[Usage] = []

    def on_validation_end(self, trainer: Any, pl_module: Any) -> None:
        if trainer.current_epoch + 1 in self.epochs:
            self.seen.append(Usage.now(trainer, pl_module))


def fit(module: Any, epochs: int, *callbacks: Callback) -> Any:
    options: dict[str, Any] = {"num_sanity_val_steps": 0, "limit_train_batches": 1}
    trainer = make_trainer(list(callbacks), False, max_epochs=epochs, **options)  # type: ignore[arg-type]
    with recorded_warnings():
        trainer.fit(module)
    return trainer


def one_run(epochs: int) -> list[dict[str, Any]]:
    """On this rank: what is used during a single run."""
    measures = Measures({round(moment * epochs) for moment in MOMENTS})
    fit(Tiny(), epochs, RetrievalGuard("correct"), measures)
    return [asdict(usage) for usage in measures.seen]


def many_runs(epochs: int) -> list[dict[str, Any]]:
    """On this rank: what is used after some of many runs, once the guard has left."""
    module, guards = Tiny(), [RetrievalGuard(mode) for mode in MODES]
    runs = max(epochs // EPOCHS_OF_A_SHORT_RUN, 4)
    moments, seen = {round(moment * runs) for moment in MOMENTS}, []
    for number in range(1, runs + 1):
        trainer = fit(module, EPOCHS_OF_A_SHORT_RUN, guards[number % len(guards)])
        if number in moments:
            seen.append(Usage.now(trainer, module))
    return [asdict(usage) for usage in seen]


# The halves of the soak, and whether the guard is at work where is measured.
HALVES: dict[str, tuple[Callable[[int], Any], bool]] = {"one run": (one_run, True), "many runs": (many_runs, False)}


def soak(pool: Pool, half: str, epochs: int) -> list[list[Usage]]:
    """What every rank used at the moments."""
    function, _ = HALVES[half]
    target = f"{function.__module__}:{function.__name__}"
    if function.__module__ == "__main__":
        target = f"tests.soak:{function.__name__}"
    outcomes = pool.run(target, case=half, timeout=60 + epochs, epochs=epochs)
    assert all(outcome.ok for outcome in outcomes), "\n".join(map(str, outcomes))
    return [[Usage(**usage) for usage in outcome.value] for outcome in outcomes]


def growth(half: str, usages: list[Usage]) -> list[str]:
    """What grew on a rank, and what of the guard is there that should not be."""
    first, _, last = usages
    found = []
    if last.memory - first.memory > MEBIBYTES:
        found.append(f"{ROWS['memory']}: {first.memory:.1f} to {last.memory:.1f}")
    for field in fields(Usage)[1:]:
        counts = [getattr(usage, field.name) for usage in usages]
        if counts[0] < counts[1] < counts[2]:
            found.append(f"{ROWS[field.name]}: {' '.join(map(str, counts))}")
    if HALVES[half][1] != bool(last.patched):
        found.append(f"{ROWS['patched']}: {last.patched}")
    return found


def table(half: str, ranks: list[list[Usage]]) -> str:
    lines = [f"{half:24}" + "".join(f"{f'rank {rank}: start':>16}{'mid':>8}{'end':>8}" for rank in range(len(ranks)))]
    for name, text in ROWS.items():
        shown = [[getattr(usage, name) for usage in usages] for usages in ranks]
        cells = [[f"{value:.1f}" if isinstance(value, float) else str(value) for value in values] for values in shown]
        lines.append(f"{text:24}" + "".join(f"{start:>16}{mid:>8}{end:>8}" for start, mid, end in cells))
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--epochs", type=int, default=2000)
    parser.add_argument("--processes", type=int, default=2)
    arguments = parser.parse_args()
    pool = Pool(arguments.processes)
    failures = []
    for half in HALVES:
        began = time.monotonic()
        ranks = soak(pool, half, arguments.epochs // 2)
        print(f"{table(half, ranks)}\n{arguments.epochs // 2} epochs in {time.monotonic() - began:.0f} s\n", flush=True)
        failures += [f"rank {rank}: {what}" for rank, usages in enumerate(ranks) for what in growth(half, usages)]
    pool.close()
    print("\n".join(failures) if failures else "Nothing grew.")
    return bool(failures)


if __name__ == "__main__":
    sys.exit(main())
