"""The runs of the demo: one training, and one evaluation for each row of the table."""

import logging
import os
import re
import sys
import warnings
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from multiprocessing import get_all_start_methods
from typing import Any, Literal

import torch
from lightning.pytorch import Callback, Trainer
from lightning.pytorch.callbacks import TQDMProgressBar
from lightning.pytorch.strategies import DDPStrategy
from torch.utils.data import DataLoader, TensorDataset

from lightning_retrieval_guard.demo.encoder import METRICS, DualEncoder, Loader
from lightning_retrieval_guard.settings import VARIABLES

EPOCHS = 10
# No step here takes more than a second; a process that waits this long waits for ever.
GROUP_TIMEOUT = timedelta(seconds=60)
_TRACEBACK = "Traceback (most recent call last)"
# The end of a traceback, from the line that names the error: a process sends its error back as text.
_RAISED = re.compile(r"^(?:\w+\.)*(?P<type>\w*(?:Error|Exception|Interrupt|Exit)\b.*)", re.MULTILINE | re.DOTALL)
_NOISY_LOGGERS = ("lightning.pytorch", "lightning.fabric", "torch.multiprocessing.spawn")
_NOISY_MESSAGES = (".*does not have many workers", "Using `DistributedSampler` with the dataloaders")
# Variables would put a guard into the runs that show none; Lightning leaves its port, and each run takes a fresh one.
_UNSET = (*VARIABLES, "MASTER_PORT")


@dataclass(frozen=True)
class Run:
    """What one evaluation came to."""

    label: str  # its row in the table
    numbers: Mapping[str, float] = field(default_factory=dict)  # the logged ones by name; empty if the run failed
    error: str = ""  # the type and the message of what it raised; empty if it raised nothing

    @property
    def stopped_by_guard(self) -> bool:
        """Whether the guard ended the run, as strict mode does."""
        return self.error.startswith("GuardError")


def train(pairs: TensorDataset, held_out: Loader, seed: int) -> DualEncoder:
    """Trains an encoder on one process, with a progress bar; equal seeds give equal weights and order of batches."""
    order = torch.Generator().manual_seed(seed)
    loader = DataLoader(pairs, held_out.batch_size, shuffle=True, drop_last=True, generator=order)
    with silenced(), torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = DualEncoder()
        # Where nothing can overwrite a line, once an epoch is often enough.
        bar = TQDMProgressBar(refresh_rate=5 if sys.stdout.isatty() else len(loader))
        trainer = _trainer(1, bar, max_epochs=EPOCHS, num_sanity_val_steps=0)
        trainer.fit(model, loader, held_out)
    return model


def evaluate(label: str, model: DualEncoder, held_out: Loader, devices: int, guard: Callback | None = None) -> Run:
    """Evaluates the same weights once more, on `devices` processes, and never raises what a run raises."""
    callbacks = [guard] if guard else []
    try:
        with silenced():
            trainer = _trainer(devices, *callbacks, enable_progress_bar=False)
            trainer.validate(model, held_out, verbose=False)
    except Exception as error:  # a run that fails is a row of the table, not the end of the demo
        return Run(label, error=raised(error))
    return Run(label, {name: float(trainer.callback_metrics[name]) for name in METRICS})


def raised(error: Exception) -> str:
    """Returns the type and the message of an error, also of one that a process sent as a traceback."""
    _, sent, last = str(error).rpartition(_TRACEBACK)
    if not sent:
        return f"{type(error).__name__}: {last}"
    match = _RAISED.search(last)
    return (match["type"] if match else last).strip()


def _trainer(devices: int, *callbacks: Callback, **options: Any) -> Trainer:
    # These are ddp_fork and ddp_spawn, with a time limit.
    method: Literal["fork", "spawn"] = "fork" if "fork" in get_all_start_methods() else "spawn"
    strategy = "auto" if devices == 1 else DDPStrategy(start_method=method, timeout=GROUP_TIMEOUT)
    options |= {"logger": False, "enable_checkpointing": False, "enable_model_summary": False}
    return Trainer(accelerator="cpu", devices=devices, strategy=strategy, callbacks=list(callbacks), **options)


@contextmanager
def silenced() -> Iterator[None]:
    """Silences what Lightning and torch say about a small run, and computes on one thread.

    After the with block log levels, warning filters, environment and thread count are as before.
    """
    with ExitStack() as undo, warnings.catch_warnings():
        for message in _NOISY_MESSAGES:
            warnings.filterwarnings("ignore", message)
        # What a library does that will change one day is not the reader's; GuardWarning is none of these.
        for category in (DeprecationWarning, FutureWarning):
            warnings.simplefilter("ignore", category)
        for logger in map(logging.getLogger, _NOISY_LOGGERS):
            undo.callback(logger.setLevel, logger.level)
            logger.setLevel(logging.ERROR)
        undo.callback(os.environ.update, dict(os.environ))
        undo.callback(os.environ.clear)
        for name in _UNSET:
            os.environ.pop(name, None)
        # A forked process must not meet the thread pool of its parent.
        os.environ["OMP_NUM_THREADS"] = "1"
        undo.callback(torch.set_num_threads, torch.get_num_threads())
        torch.set_num_threads(1)
        yield
