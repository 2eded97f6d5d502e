"""What a rank does with one case: build the module, evaluate it under a Trainer with the guard, tell what it showed."""

from __future__ import annotations

import importlib
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lightning_retrieval_guard.callback import RetrievalGuard
from lightning_retrieval_guard.findings import Finding
from lightning_retrieval_guard.parity.cut import Cutter, Loader
from lightning_retrieval_guard.parity.options import Options
from lightning_retrieval_guard.parity.target import Built, build
from lightning_retrieval_guard.parity.weights import load_weights, save_weights

EVALUATE = f"{__name__}:evaluate"


@dataclass(frozen=True)
class Case:
    """One evaluation.

    Attributes:
        options: What the user asked for.
        batch_sizes: Of each process, one for each loader; ``None`` leaves them as they are.
        weights: The folder of the weights; one process writes them, more of them read them.
        folder: The working directory.
    """

    options: Options
    batch_sizes: tuple[int, ...] | None
    weights: Path
    folder: str


@dataclass(frozen=True)
class Shown:
    """What one rank showed.

    Attributes:
        numbers: The numbers of the epoch by key.
        findings: Of the guard, merged over ranks.
        loaders: As they were after the cut.
    """

    numbers: Mapping[str, float]
    findings: tuple[Finding, ...]
    loaders: tuple[Loader, ...]


def evaluate(case: Case) -> Shown:
    """Run one case on this rank.

    Raises:
        ParityError: The function, what it returned or its weights are of no use; the text says why.
    """
    os.chdir(case.folder)
    options = case.options
    _seed(options.seed)
    built = build(options.target)
    exchange = save_weights if os.environ["WORLD_SIZE"] == "1" else load_weights  # one process runs first
    exchange(built.module, case.weights)
    cutter, guard = Cutter(case.batch_sizes), _guard(built, options)
    trainer = _trainer(built, guard, options)
    trainer.strategy.process_dataloader = cutter.process_dataloader
    _seed(options.seed)  # what setup() draws does not hang on how the weights came to be
    returned = getattr(trainer, options.stage)(built.module, **built.data, verbose=False)
    numbers = {key: float(value) for metrics in returned for key, value in metrics.items()}
    return Shown(numbers, tuple(guard.findings), tuple(cutter.loaders))


def _seed(seed: int) -> None:
    importlib.import_module("lightning.pytorch").seed_everything(seed, workers=True)


def _guard(built: Built, options: Options) -> RetrievalGuard:
    """The guard of this run; it takes over the settings of one that the program brings, but for the mode."""
    own = [one for one in _callbacks(built) if isinstance(one, RetrievalGuard)]
    if not own:
        return RetrievalGuard(options.mode, log_findings=False)
    given = own[0].settings
    return RetrievalGuard(
        options.mode,
        select=given.select,
        ignore=given.ignore,
        query_scope=given.query_scope,
        batch_size_fn=given.batch_size_fn,
        log_findings=False,
    )


def _callbacks(built: Built) -> list[Any]:
    given = built.trainer.get("callbacks") or []
    return list(given) if isinstance(given, (list, tuple)) else [given]


def _trainer(built: Built, guard: RetrievalGuard, options: Options) -> Any:
    package = importlib.import_module(built.package)
    strategies = importlib.import_module(f"{built.package}.strategies")
    environments = importlib.import_module(f"{built.package}.plugins.environments")
    loggers = importlib.import_module(f"{built.package}.loggers.logger")
    quiet = {
        "logger": loggers.DummyLogger(),
        "enable_checkpointing": False,
        "enable_model_summary": False,
        "enable_progress_bar": False,
    }
    others = [one for one in _callbacks(built) if not isinstance(one, RetrievalGuard)]
    # One process too has a process group, as programs that are written for several of them expect.
    strategy = strategies.DDPStrategy(
        cluster_environment=environments.TorchElasticEnvironment(),
        process_group_backend="gloo",
    )
    fixed = {
        "callbacks": [*others, guard],
        "accelerator": "cpu",
        "devices": int(os.environ["WORLD_SIZE"]),
        "num_nodes": 1,
        "strategy": strategy,
    }
    return package.Trainer(**{**quiet, **built.trainer, **fixed})
