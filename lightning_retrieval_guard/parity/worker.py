"""What a rank does with one case: build the module, evaluate it under a Trainer with the guard, tell what it showed."""

from __future__ import annotations

import importlib
import os
from pathlib import Path
from typing import Any

from lightning_retrieval_guard.callback import RetrievalGuard
from lightning_retrieval_guard.findings import Finding
from lightning_retrieval_guard.parity.cut import Cutter, Loader
from lightning_retrieval_guard.parity.options import Options
from lightning_retrieval_guard.parity.target import Built, build
from lightning_retrieval_guard.parity.weights import load_weights, save_weights

EVALUATE = f"{__name__}:evaluate"


def evaluate(
    options: Options, batch_sizes: tuple[int, ...] | None, weights: Path, folder: str
) -> tuple[dict[str, float], tuple[Finding, ...], tuple[Loader, ...]]:
    """Run one case on this rank.

    Args:
        options: What the user asked for.
        batch_sizes: Of each process, one for each loader; ``None`` leaves them as they are.
        weights: The folder of the weights; one process writes them, more of them read them.
        folder: The working directory.

    Returns:
        The numbers of the epoch by key, the guard's findings, merged over ranks, and the loaders after the cut.

    Raises:
        ParityError: The function, what it returned or its weights are of no use; the text says why.
    """
    os.chdir(folder)
    _seed(options.seed)
    built = build(options.target)
    exchange = save_weights if os.environ["WORLD_SIZE"] == "1" else load_weights  # one process runs first
    exchange(built.module, weights)
    given = built.trainer.get("callbacks") or []
    callbacks = list(given) if isinstance(given, (list, tuple)) else [given]
    cutter, guard = Cutter(batch_sizes), _guard(callbacks, options)
    others = [callback for callback in callbacks if not isinstance(callback, RetrievalGuard)]
    trainer = _trainer(built, [*others, guard])
    trainer.strategy.process_dataloader = cutter.process_dataloader
    _seed(options.seed)  # what setup() draws does not hang on how the weights came to be
    returned = getattr(trainer, options.stage)(built.module, **built.data, verbose=False)
    numbers = {key: float(value) for metrics in returned for key, value in metrics.items()}
    return numbers, tuple(guard.findings), tuple(cutter.loaders)


def _seed(seed: int) -> None:
    importlib.import_module("lightning.pytorch").seed_everything(seed, workers=True)


def _guard(callbacks: list[Any], options: Options) -> RetrievalGuard:
    """The guard of this run; it takes over the settings of one that the program brings, but for the mode."""
    names = ("select", "ignore", "query_scope", "batch_size_fn")
    given = [callback.settings for callback in callbacks if isinstance(callback, RetrievalGuard)]
    settings = {name: getattr(given[0], name) for name in names} if given else {}
    return RetrievalGuard(options.mode, **settings, log_findings=False)


def _trainer(built: Built, callbacks: list[Any]) -> Any:
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
    # One process too has a process group, as programs that are written for several of them expect.
    strategy = strategies.DDPStrategy(
        cluster_environment=environments.TorchElasticEnvironment(), process_group_backend="gloo"
    )
    fixed = {
        "callbacks": callbacks,
        "accelerator": "cpu",
        "devices": int(os.environ["WORLD_SIZE"]),
        "num_nodes": 1,
        "strategy": strategy,
    }
    return package.Trainer(**{**quiet, **built.trainer, **fixed})
