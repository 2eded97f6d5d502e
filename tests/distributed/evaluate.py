"""What a rank does with one program: evaluate it under a Trainer and tell everything that was shown.

By hand, one program in one mode: `python -m tests.distributed.evaluate NAME [--mode warn] [--devices 2]`.
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import os
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from datetime import timedelta
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer, seed_everything
from lightning.pytorch.loggers import Logger
from lightning.pytorch.strategies import DDPStrategy

from .harness import Outcome, Pool
from .programs import EVERY

GROUP_TIMEOUT = timedelta(seconds=20)
COLLECTIVES = """
all_gather all_gather_coalesced all_gather_into_tensor all_gather_object all_reduce all_reduce_coalesced
all_to_all all_to_all_single barrier broadcast broadcast_object_list gather gather_object irecv isend
monitored_barrier recv reduce reduce_scatter reduce_scatter_tensor scatter scatter_object_list send
"""


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


class StepStart(Callback):
    """The first callback: a batch begins before any other callback hears of it."""

    def __init__(self) -> None:
        self.in_step = False

    def _enter(self, *args: Any, **kwargs: Any) -> None:
        self.in_step = True

    on_validation_batch_start = on_test_batch_start = _enter


class StepEnd(Callback):
    """The last callback: a batch is over when every other one has heard of it."""

    def __init__(self, start: StepStart) -> None:
        self.start = start

    def _leave(self, *args: Any, **kwargs: Any) -> None:
        self.start.in_step = False

    on_validation_batch_end = on_test_batch_end = _leave


@contextlib.contextmanager
def counted_collectives(batch: StepStart) -> Iterator[dict[str, int]]:
    """Count the calls of collectives on any group, in total and while batches are processed."""
    counts = {"step": 0, "total": 0}

    def counted(function: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(function)
        def call(*args: Any, **kwargs: Any) -> Any:
            counts["total"] += 1
            counts["step"] += batch.in_step
            return function(*args, **kwargs)

        return call

    originals = {name: getattr(torch.distributed, name) for name in COLLECTIVES.split()}
    for name, original in originals.items():
        setattr(torch.distributed, name, counted(original))
    try:
        yield counts
    finally:
        for name, original in originals.items():
            setattr(torch.distributed, name, original)


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


def evaluate(
    program: str,
    mode: str = "none",
    method: str = "validate",
    right_form: bool = False,
    guard_options: dict[str, Any] | None = None,
    within: Sequence[str] = (),
) -> dict[str, Any]:
    """Run one program on this rank.

    Args:
        program: an entry of `EVERY`.
        mode: "none", "warn", "correct" or "strict".
        method: "validate" or "test".
        right_form: build the program's right form in its place.
        guard_options: further arguments of RetrievalGuard.
        within: codes that a block around the run keeps quiet.
    """
    entry = EVERY[program]
    seed_everything(1)
    module = (entry.reference if right_form else entry.factory)(int(os.environ["WORLD_SIZE"]))
    guard = guards(mode, guard_options or {})
    quiet = guard[0].ignore(*within) if within else contextlib.nullcontext()
    with recorded_warnings() as warned, quiet:
        return _run(module, guard, method) | {"warnings": warned}


def _run(module: LightningModule, guard: list[Callback], method: str) -> dict[str, Any]:
    recorder, start = Recorder(), StepStart()
    trainer = make_trainer([start, *guard, StepEnd(start)], recorder, **module.trainer_options)
    with counted_collectives(start) as collectives:
        returned = getattr(trainer, method)(module, verbose=False)
    return {
        "returned": returned,
        "callback_metrics": _floats(trainer.callback_metrics),
        "logged_metrics": _floats(trainer.logged_metrics),
        "progress_bar_metrics": _floats(trainer.progress_bar_metrics),
        "logger": [(metrics, step) for metrics, step in recorder.received if not _is_guards(metrics)],
        "counts": [(metrics, step) for metrics, step in recorder.received if _is_guards(metrics)],
        "findings": [finding.to_dict() for callback in guard for finding in callback.findings],
        "collectives": dict(collectives),
        "random": int(torch.random.get_rng_state().sum()),
    }


def _is_guards(metrics: dict[str, float]) -> bool:
    """The guard's own call, which holds nothing of the program's."""
    are_guards = [key.startswith("guard/") for key in metrics]
    assert all(are_guards) or not any(are_guards), metrics
    return all(are_guards) and bool(are_guards)


def _floats(metrics: dict[str, Any]) -> dict[str, float]:
    return {name: float(value) for name, value in metrics.items()}


def main() -> int:
    """Run one program by hand and print what each rank shows."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("name", choices=sorted(EVERY), metavar="NAME")
    parser.add_argument("--mode", default="none", choices=["none", "warn", "correct", "strict"])
    parser.add_argument("--method", default="validate", choices=["validate", "test"])
    parser.add_argument("--devices", type=int, default=2)
    parser.add_argument("--keys", default="", help="show only keys that contain this text")
    arguments = parser.parse_args()
    outcomes, reference = shown(arguments)
    for outcome in outcomes:
        print(f"--- rank {outcome.rank}: {outcome.status} {outcome.error}")
        if outcome.ok:
            print_shown(outcome.value, reference, arguments.keys)
        else:
            print(outcome.log)
    return 0


def shown(arguments: argparse.Namespace) -> tuple[list[Outcome], dict[str, float]]:
    """The outcomes on every rank, and the reference by key."""
    target = f"{__package__}.evaluate:evaluate"
    pool, alone = Pool(arguments.devices), Pool(1)
    try:
        outcomes = pool.run(target, program=arguments.name, mode=arguments.mode, method=arguments.method)
        [reference] = alone.run(target, program=arguments.name, method=arguments.method, right_form=True)
    finally:
        pool.close()
        alone.close()
    return outcomes, reference.value["callback_metrics"] if reference.ok else {}


def print_shown(value: dict[str, Any], reference: dict[str, float], keys: str) -> None:
    """Numbers beside the reference, then findings and collectives."""
    for name, number in value["callback_metrics"].items():
        if keys in name:
            expected = reference.get(name, float("nan"))
            mark = "" if abs(number - expected) < 1e-6 else "!"
            print(f"{name:32} {number:.7f} reference {expected:.7f} {mark}")
    for warned in value["warnings"]:
        if "GuardWarning" in warned["categories"]:
            print(f"{warned['path']}:{warned['line']}: {warned['text']}")
    for finding in value["findings"]:
        print(finding)
    print("collectives:", value["collectives"])


if __name__ == "__main__":
    sys.exit(main())
