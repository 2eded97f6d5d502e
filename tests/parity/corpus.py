"""The programs of the corpus as targets of parity: `tests.parity.corpus:wrong__shard_of_forward`.

A program makes trainers and calls them. Here it gets one that only remembers what it was called with.
"""

from __future__ import annotations

import importlib
import os
import re
from collections.abc import Callable
from typing import Any

from lightning.pytorch import LightningModule

from tests.programs.expectations import Program

SEED = 1
"""With which the corpus seeds its own runs."""


class Recorder:
    """A trainer that runs nothing."""

    def __init__(self, **options: Any) -> None:
        self.options = options
        self.world_size = int(os.environ["WORLD_SIZE"])
        self.callback_metrics: dict[str, Any] = {}
        self.calls: dict[str, tuple[LightningModule, Any]] = {}

    def fit(self, model: LightningModule, train: Any = None, val: Any = None, datamodule: Any = None) -> None:
        self.validate(model, val, datamodule)

    def validate(self, model: LightningModule, loaders: Any = None, datamodule: Any = None, **_: Any) -> None:
        self.calls.setdefault("validate", (model, loaders or datamodule))

    def test(self, model: LightningModule, loaders: Any = None, datamodule: Any = None, **_: Any) -> None:
        self.calls.setdefault("test", (model, loaders or datamodule))


def target_of(program: Program, stage: str) -> str:
    return f"{__name__}:{stage}__{program.name.replace('.', '__')}"


def stages_of(program: Program) -> list[str]:
    """The stages that a program runs; the validation within a training counts as one."""
    found = re.findall(r"\.(fit|validate|test)\(", program.text)
    return sorted({"test" if name == "test" else "validate" for name in found})


def __getattr__(name: str) -> Callable[[], Any]:
    stage, _, program = name.partition("__")
    if stage not in ("validate", "test"):
        raise AttributeError(name)

    def build() -> tuple[LightningModule, Any, dict[str, Any]]:
        made: list[Recorder] = []

        def make_trainer(**options: Any) -> Recorder:
            made.append(Recorder(**options))
            return made[-1]

        importlib.import_module(f"tests.programs.{program.replace('__', '.', 1)}").main(make_trainer)
        trainer = next(one for one in made if stage in one.calls)
        return (*trainer.calls[stage], trainer.options)

    return build
