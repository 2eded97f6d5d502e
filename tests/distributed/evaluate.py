"""What a rank does with one program: evaluate it under a Trainer and tell everything that was shown."""

from __future__ import annotations

import contextlib
import os
import sys
import warnings
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import torch
from lightning.pytorch import Callback, Trainer, seed_everything
from lightning.pytorch.loggers import Logger
from lightning.pytorch.strategies import DDPStrategy

from .counting import Step, counted_collectives
from .programs import EVERY

GROUP_TIMEOUT = timedelta(seconds=20)


class Recorder(Logger):
    """A logger that keeps what every rank hands to it."""

    def __init__(self) -> None:
        super().__init__()
        self.received: list[tuple[dict[str, float], int | None]] = []

    @property
    def name(self) -> str:
        return "recorder"

    @property
    def version(self) -> str:
        return "0"

    def log_hyperparams(self, *args: Any, **kwargs: Any) -> None:
        pass

    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        self.received.append((dict(metrics), step))


@contextlib.contextmanager
def recorded_warnings() -> Iterator[list[dict[str, Any]]]:
    """Keep every warning, and write each once to this rank's log, which outlives a crash."""
    seen: list[dict[str, Any]] = []

    def show(message: Any, category: type[Warning], filename: str, lineno: int, *_: Any) -> None:
        names = [base.__name__ for base in category.__mro__]
        warned = {"categories": names, "text": " ".join(str(message).split()), "path": filename, "line": lineno}
        if warned not in seen:
            print(f"{filename}:{lineno}: {category.__name__}: {message}", file=sys.stderr, flush=True)
        seen.append(warned)

    with warnings.catch_warnings():
        warnings.simplefilter("always")
        warnings.showwarning = show
        yield seen


def make_trainer(callbacks: list[Callback], logger: Logger, **options: Any) -> Trainer:
    """A Trainer over every process of this pool, without any output."""
    return Trainer(
        accelerator="cpu",
        strategy=DDPStrategy(timeout=GROUP_TIMEOUT),
        devices=int(os.environ["WORLD_SIZE"]),
        num_nodes=1,
        logger=logger,
        callbacks=callbacks,
        enable_progress_bar=False,
        enable_model_summary=False,
        enable_checkpointing=False,
        **options,
    )


def guards(mode: str, options: dict[str, Any]) -> list[Callback]:
    """The guard under test; none for the mode "none"."""
    if mode == "none":
        return []
    from .checked import CheckedGuard

    return [CheckedGuard(mode=mode, **options)]


def evaluate(program: str, mode: str = "none", method: str = "validate", right_form: bool = False) -> dict[str, Any]:
    """Run one program on this rank.

    Args:
        program: an entry of `EVERY`.
        mode: "none", "warn", "correct" or "strict".
        method: "validate" or "test".
        right_form: build the program's right form in its place.
    """
    entry = EVERY[program]
    seed_everything(1)
    module = (entry.reference if right_form else entry.factory)(int(os.environ["WORLD_SIZE"]))
    guard, recorder, step = guards(mode, {}), Recorder(), Step()
    trainer = make_trainer(step.around(*guard), recorder, **module.trainer_options)
    with recorded_warnings() as warned, counted_collectives(step) as collectives:
        returned = getattr(trainer, method)(module, verbose=False)
    return {
        "returned": returned,
        "callback_metrics": _floats(trainer.callback_metrics),
        "logged_metrics": _floats(trainer.logged_metrics),
        "progress_bar_metrics": _floats(trainer.progress_bar_metrics),
        "logger": [(metrics, step) for metrics, step in recorder.received if not _is_guards(metrics)],
        "findings": [finding.to_dict() for callback in guard for finding in callback.findings],
        "warnings": warned,
        "collectives": collectives.counts,
        "random": float(torch.rand(())),
    }


def _is_guards(metrics: dict[str, float]) -> bool:
    """The guard's own call, which holds nothing of the program's."""
    are_guards = [key.startswith("guard/") for key in metrics]
    assert all(are_guards) or not any(are_guards), metrics
    return all(are_guards) and bool(are_guards)


def _floats(metrics: dict[str, Any]) -> dict[str, float]:
    return {name: float(value) for name, value in metrics.items()}
