"""One program on every rank of a pool: what it shows there, and what the guard finds and says."""

from __future__ import annotations

import pickle
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from lightning.pytorch import LightningModule, Trainer

from lightning_retrieval_guard import Finding

from .evaluate import guards, make_trainer, recorded_warnings
from .harness import Pool

TARGET = f"{__name__}:run"
_KEPT: dict[bytes, list[Any]] = {}


@dataclass(frozen=True)
class Shown:
    """What one rank shows.

    Attributes:
        numbers: Those that callbacks see after the run.
        findings: The guard's.
        said: The guard's warnings on this rank.
        kept: Attributes that the module has after the run.
    """

    numbers: dict[str, float]
    findings: list[Finding]
    said: list[str]
    kept: dict[str, Any]

    @property
    def found(self) -> list[Finding]:
        """The findings above note."""
        return [finding for finding in self.findings if finding.severity != "note"]

    @property
    def corrected(self) -> list[tuple[str, bool]]:
        """Codes above note, and whether each was corrected."""
        return [(finding.code, finding.corrected) for finding in self.found]


def on_ranks(
    pool: Pool, program: Callable[[], LightningModule], mode: str = "none", keeps: Sequence[str] = (), **options: Any
) -> list[Shown]:
    """What every rank shows; all of them must end well. The same is run once.

    Args:
        pool: The processes.
        program: Makes the module; a class, or a `functools.partial` of one, which can be sent to them.
        mode: Of the guard, "none" without one.
        keeps: Names of the module's attributes to bring back.
        options: Further arguments of `run`.
    """
    return once(pool, TARGET, case=f"{program} in mode {mode}", program=program, mode=mode, keeps=keeps, **options)


def once(pool: Pool, target: str, **options: Any) -> list[Any]:
    """What `pool.values` returns, from one run for all tests that ask for it."""
    key = pickle.dumps((pool.world_size, target, options))
    if key not in _KEPT:
        _KEPT[key] = pool.values(target, **options)
    return _KEPT[key]


def run(
    program: Callable[[], LightningModule],
    mode: str,
    keeps: Sequence[str] = (),
    guard_options: Mapping[str, Any] | None = None,
    method: str = "validate",
    **trainer_options: Any,
) -> Shown:
    """Run the program on this rank; `trainer_options` are those of the Trainer."""
    module, guard = program(), guards(mode, dict(guard_options or {}))
    with recorded_warnings() as warned:
        trainer = make_trainer(guard, False, **trainer_options)
        getattr(trainer, method)(module)
    return shown_by(trainer, guard, warned, {name: getattr(module, name) for name in keeps})


def shown_by(trainer: Trainer, guard: Sequence[Any], warned: Sequence[dict[str, Any]], kept: dict[str, Any]) -> Shown:
    """What a run has left."""
    return Shown(
        {name: float(value) for name, value in trainer.callback_metrics.items()},
        [finding for callback in guard for finding in callback.findings],
        [one["text"] for one in warned if "GuardWarning" in one["categories"]],
        kept,
    )
