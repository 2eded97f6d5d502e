"""What a rank does with one program: run it under a Trainer of the corpus, and tell what it logged.

By hand, one program: `python -m tests.programs.evaluate NAME [--mode warn] [--devices 2] [--repaired]`.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import os
import re
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from lightning.pytorch import Trainer, seed_everything
from lightning.pytorch.strategies import DDPStrategy

from lightning_retrieval_guard.findings import show_number
from tests.distributed.counting import Step, counted_collectives
from tests.distributed.evaluate import GROUP_TIMEOUT, Recorder, guards, recorded_warnings
from tests.distributed.harness import Pool

from .expectations import read_programs

# Of Lightning, of steps, and the guard's own counts of findings.
NOT_OF_EPOCHS = re.compile(r"^epoch$|_step$|^guard/")

TARGET = f"{__package__}.evaluate:evaluate"


class Trainers:
    """Makes the trainers of one program, with the guard under test in them."""

    def __init__(self, mode: str, ignored: Sequence[str]) -> None:
        self.guard = guards(mode, {"ignore": ignored})
        self.step = Step()
        self.recorder = Recorder()
        self.made: list[Trainer] = []

    def make(self, **options: Any) -> Trainer:
        """A Trainer over every process of this pool, without any output."""
        trainer = Trainer(
            accelerator="cpu",
            strategy=DDPStrategy(timeout=GROUP_TIMEOUT),
            devices=int(os.environ["WORLD_SIZE"]),
            num_nodes=1,
            logger=self.recorder,
            callbacks=self.step.around(*options.pop("callbacks", []), *self.guard),
            enable_progress_bar=False,
            enable_model_summary=False,
            **{"enable_checkpointing": False, **options},
        )
        self.made.append(trainer)
        return trainer


def evaluate(
    program: str, mode: str = "none", text: str = "", ignored: Sequence[str] = (), within: Sequence[str] = ()
) -> dict[str, Any]:
    """Run one program on this rank.

    Args:
        program: the name of its module in this package, such as "right.corpus_over_batches".
        mode: "none", "warn", "correct" or "strict".
        text: what to run in the module's place.
        ignored: codes that the guard is told to ignore.
        within: codes that a block around the run keeps quiet.
    """
    name = f"{__package__}.{program}"
    module = _module_of(text, name) if text else importlib.import_module(name)
    trainers = Trainers(mode, ignored)
    seed_everything(1)
    quiet = trainers.guard[0].ignore(*within) if within else contextlib.nullcontext()
    with recorded_warnings() as warned, counted_collectives(trainers.step) as collectives, quiet:
        module.main(trainers.make)
    return {
        "everything": list(_everything(trainers)),
        "collectives": collectives.counts,
        "stages": _stages(trainers),
        "random": float(torch.rand(())),
        "logged": [_of_epochs(metrics) for metrics, _ in trainers.recorder.received],
        "shown": [_of_epochs(trainer.callback_metrics) for trainer in trainers.made],
        "findings": [finding.to_dict() for callback in trainers.guard for finding in callback.findings],
        "warnings": [warning for warning in warned if "GuardWarning" in warning["categories"]],
    }


def _everything(trainers: Trainers) -> Iterator[dict[str, float]]:
    """All numbers of the program, those of steps too, wherever they are shown."""
    yield from (metrics for metrics, _ in trainers.recorder.received if not any("guard/" in key for key in metrics))
    for trainer in trainers.made:
        for metrics in (trainer.callback_metrics, trainer.logged_metrics, trainer.progress_bar_metrics):
            yield {name: float(value) for name, value in metrics.items()}


def _stages(trainers: Trainers) -> int:
    """How many stages and epochs there were, each of which the guard's own call tells, and sanity checks."""
    told = sum(any("guard/" in key for key in metrics) for metrics, _ in trainers.recorder.received)
    return told + sum(trainer.fit_loop.total_batch_idx >= 0 for trainer in trainers.made)


def _module_of(text: str, name: str) -> ModuleType:
    module = ModuleType(name)
    module.__package__ = name.rpartition(".")[0]
    exec(compile(text, f"changed_{name}.py", "exec"), module.__dict__)
    return module


def _of_epochs(metrics: dict[str, Any]) -> dict[str, float]:
    """The program's numbers of epochs; those of steps are each rank's own."""
    return {name: float(value) for name, value in metrics.items() if not NOT_OF_EPOCHS.search(name)}


def printed(finding: dict[str, Any]) -> list[str]:
    """The lines about a finding: what is wrong and where, the numbers if they are known, and the repair."""
    name = Path(finding["path"]).name
    lines = [f"{name}:{finding['line']}: {finding['code']} {finding['rule']}: {finding['message']}"]
    if effect := finding["effect"]:
        logged, reference = show_number(effect["logged"]), show_number(effect["reference"])
        lines.append(f"{finding['key']}: logged {logged}, one device {reference}")
    return [*lines, f"Fix: {finding['fix']}"]


def main() -> int:
    """Run one program by hand and print what each rank shows."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("name", metavar="NAME")
    parser.add_argument("--mode", default="warn", choices=["none", "warn", "correct", "strict"])
    parser.add_argument("--devices", type=int, default=2)
    parser.add_argument("--repaired", action="store_true", help="with the changes in the .diff beside it")
    arguments = parser.parse_args()
    text = read_programs()[arguments.name].repaired if arguments.repaired else ""
    pool = Pool(arguments.devices)
    try:
        for outcome in pool.run(TARGET, program=arguments.name, mode=arguments.mode, text=text):
            print(f"--- rank {outcome.rank}: {outcome.status}")
            print(outcome.value["logged"] if outcome.ok else outcome)
            for finding in outcome.value["findings"] if outcome.ok else ():
                print(*printed(finding), sep="\n  ")
    finally:
        pool.close()
    return 0


if __name__ == "__main__":
    sys.exit(main())
