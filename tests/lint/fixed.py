"""What a rank does with a program of the corpus that ``--fix`` has changed."""

from __future__ import annotations

from types import ModuleType
from typing import Any

from lightning.pytorch import seed_everything

from tests.programs.evaluate import Trainers

TARGET = f"{__name__}:evaluate_text"


def evaluate_text(text: str) -> dict[str, Any]:
    """Run a program by its text, without a guard, and tell what it logged."""
    module = ModuleType("tests.programs.wrong.fixed_program")
    module.__package__ = "tests.programs.wrong"
    exec(compile(text, "fixed_program.py", "exec"), module.__dict__)
    trainers = Trainers("none")
    seed_everything(1)
    module.main(trainers.make)
    return {name: float(value) for trainer in trainers.made for name, value in trainer.callback_metrics.items()}
