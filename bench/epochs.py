"""One validation of a program, with the time and the collectives of its parts: what every rank of a bench runs."""

from __future__ import annotations

import logging
import os
import time
import warnings
from dataclasses import asdict, dataclass
from datetime import timedelta
from typing import Any, cast

import torch.distributed as dist
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.strategies import DDPStrategy

from bench.collectives import Meter, metered
from lightning_retrieval_guard import RetrievalGuard

GROUP_TIMEOUT = timedelta(minutes=25)
STEP, END, OWN, OUTSIDE = "step", "end", "own", "outside"


@dataclass(frozen=True)
class Epoch:
    """What one rank saw of one validation epoch.

    Attributes:
        seconds: From the start of the epoch to its end.
        end_seconds: From the end of the last step, where ranks wait for each other first, to the end of the epoch.
        step_collectives: Collectives in steps, without the program's own.
        end_collectives: Collectives after the last step.
        sent: Bytes handed to collectives after the last step.
        values: The logged numbers.
    """

    seconds: float
    end_seconds: float
    step_collectives: int
    end_collectives: list[str]
    sent: int
    values: dict[str, float]


class Phases(Callback):
    """The last callback: turns the meter on and off and takes the time."""

    def __init__(self, meter: Meter) -> None:
        self.meter = meter
        self.begun = self.stepped = self.ended = 0.0

    def on_validation_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        _wait_for_all()
        self.meter.phase = STEP
        self.begun = time.perf_counter()

    def on_validation_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int, *_: Any
    ) -> None:
        if batch_idx + 1 < sum(map(int, trainer.num_val_batches)):
            return
        self.meter.phase = OUTSIDE
        _wait_for_all()
        self.meter.phase = END
        self.stepped = time.perf_counter()

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.ended = time.perf_counter()
        self.meter.phase = OUTSIDE


def validate(module: LightningModule, meter: Meter, mode: str) -> Epoch:
    """Validate once; ``mode`` is one of the guard's, or "plain" for no guard."""
    phases = Phases(meter)
    with metered(meter):
        trainer = evaluate(module, mode, phases, int(os.environ["WORLD_SIZE"]))
    return Epoch(
        seconds=phases.ended - phases.begun,
        end_seconds=phases.ended - phases.stepped,
        step_collectives=len(meter.names(STEP)),
        end_collectives=meter.names(END),
        sent=meter.sent(END),
        values={name: float(value) for name, value in trainer.callback_metrics.items()},
    )


def evaluate(module: LightningModule, mode: str, last: Callback, world_size: int = 1) -> Trainer:
    """Validate silently.

    Args:
        module: What to validate.
        mode: The guard's, or "plain" for no guard.
        last: A callback that comes after the guard.
        world_size: The number of processes there are.

    Raises:
        RuntimeError: The guard stepped aside, so that nothing was measured.
    """
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    guard = RetrievalGuard(mode=cast(Any, mode)) if mode != "plain" else None
    trainer = Trainer(
        accelerator="cpu",
        strategy=DDPStrategy(timeout=GROUP_TIMEOUT) if world_size > 1 else "auto",
        devices=world_size,
        callbacks=[last] if guard is None else [guard, last],
        logger=False,
        enable_progress_bar=False,
        enable_checkpointing=False,
        enable_model_summary=False,
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        trainer.validate(module, verbose=False)
    failed = [finding for finding in (guard.findings if guard else []) if finding.code == "LRG901"]
    if failed:
        raise RuntimeError(f"the guard stepped aside: {failed[0].message}")
    return trainer


def plain_dict(epoch: Epoch) -> dict[str, Any]:
    """The same as processes can send it."""
    return asdict(epoch)


def _wait_for_all() -> None:
    if dist.is_initialized():
        dist.barrier()
