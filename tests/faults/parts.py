"""The guard's own parts, found by looking, each made to raise."""

from __future__ import annotations

import contextlib
import functools
import importlib
import inspect
import pkgutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from types import FunctionType
from typing import Any

import torch
from torchmetrics import MetricCollection
from torchmetrics.retrieval import RetrievalHitRate, RetrievalMAP, RetrievalMRR

import lightning_retrieval_guard
from lightning_retrieval_guard import Finding, RetrievalGuard, Severity
from tests.distributed.evaluate import make_trainer, recorded_warnings
from tests.distributed.programs.data import Batch, rows_of
from tests.lifecycle.programs import floats, restarting_ids

from .programs import Sound

PACKAGES = ("watch", "run", "rules", "epoch", "ranking", "report")
MODULES = ("distributed.exchange",)
EARLIER = "earlier"
"""The key of a finding that was made before."""


class OutOfOrder(RuntimeError):
    """What a broken part raises."""


def find_parts() -> dict[str, FunctionType]:
    """Every public function, method and property of the guard's parts, by name."""
    root = lightning_retrieval_guard.__name__
    names = [f"{root}.{module}" for module in MODULES]
    for package in PACKAGES:
        inside = importlib.import_module(f"{root}.{package}")
        names += [
            f"{root}.{package}",
            *(f"{root}.{package}.{inner.name}" for inner in pkgutil.iter_modules(inside.__path__)),
        ]
    parts: dict[str, FunctionType] = {}
    for name in names:
        module, short = importlib.import_module(name), name.removeprefix(f"{root}.")
        for attribute, thing in vars(module).items():
            if getattr(thing, "__module__", None) != name or attribute.startswith("_"):
                continue
            if inspect.isclass(thing) and not getattr(thing, "_is_protocol", False):
                for method, function in _methods(thing):
                    parts[f"{short}:{attribute}.{method}"] = function
            elif isinstance(thing, FunctionType):
                parts[f"{short}:{attribute}"] = thing
    return parts


def _methods(owner: type) -> Iterator[tuple[str, FunctionType]]:
    for name, thing in vars(owner).items():
        if isinstance(thing, property):
            function = thing.fget
        elif isinstance(thing, functools.cached_property):
            function = thing.func
        else:
            function = getattr(thing, "__func__", thing)
        if isinstance(function, FunctionType) and not name.startswith("_"):
            yield name, function


class Broken:
    """Makes a function raise, for all who refer to it; counts how often it was called."""

    def __init__(self, function: FunctionType) -> None:
        self._function = function
        self._code = function.__code__
        self.calls = 0

    def __enter__(self) -> Broken:
        calls.clear()
        self._function.__code__ = _raise.__code__.replace(co_freevars=self._code.co_freevars)
        self._function.__globals__["_note_call"] = _note_call
        return self

    def __exit__(self, *_: object) -> None:
        self._function.__code__ = self._code
        del self._function.__globals__["_note_call"]
        self.calls = len(calls)


calls: list[None] = []


def _note_call() -> None:
    calls.append(None)
    raise OutOfOrder("out of order")


def _raise(*args: Any, **kwargs: Any) -> Any:
    _note_call()


class Everything(Sound):
    """Logs in every way, right and wrong, so that it reaches most parts."""

    def __init__(self) -> None:
        super().__init__()
        self.split = MetricCollection({"map": RetrievalMAP(), "hit": RetrievalHitRate(top_k=2)})
        self.at_end = RetrievalMRR()
        self.late = RetrievalMRR()
        self.forward_metric = RetrievalMRR()

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        scores, target, ids = rows_of(batch)
        self.metric.update(*rows_of(batch, restarting_ids(batch)))
        self.log("mrr", self.metric)
        self.split.update(scores - 0.1, target, indexes=ids // 2)
        self.log_dict(self.split)
        self.at_end.update(scores, target, indexes=ids)
        self.log("forward", self.forward_metric(scores, target, ids), batch_size=len(batch["query"]))
        made = RetrievalMRR(sync_on_compute=False)
        made.update(scores, target, indexes=ids)
        self.log("made", made.compute(), sync_dist=True)
        self.log("loss", batch["score"].mean(), sync_dist=True, batch_size=3)

    def on_validation_epoch_end(self) -> None:
        self.late.update(
            torch.rand(4, generator=torch.Generator().manual_seed(3)),
            torch.eye(2).flatten().long(),
            indexes=torch.arange(4) // 2 + 2 * self.global_rank,
        )
        self.log("at_end", self.at_end.compute())
        self.log("late", self.late.compute())


def earlier() -> Finding:
    """A finding of an epoch that is over."""
    return Finding("LRG203", "never-synced", Severity.NOTE, EARLIER, "validate", "", __file__, 1, "Said before.", "")


def make_guard(report: Path | None = None) -> RetrievalGuard:
    """A guard that has found something before."""
    guard = RetrievalGuard("correct", report=report)
    guard._reporter.log.add([earlier()], say=False)
    return guard


def validate(*guard: RetrievalGuard) -> dict[str, float]:
    """The numbers on this rank."""
    trainer = make_trainer(list(guard), False, limit_val_batches=2)
    with recorded_warnings():
        trainer.validate(Everything(), verbose=False)
    return floats(trainer.callback_metrics)


def called_parts() -> list[str]:
    """The parts that a run without a failure calls on this rank."""
    names = {function.__code__: name for name, function in find_parts().items()}
    called: set[str] = set()

    def note(frame: Any, event: str, _: Any) -> None:
        if event == "call" and frame.f_code in names:
            called.add(names[frame.f_code])

    with tempfile.TemporaryDirectory() as folder:
        guard = make_guard(Path(folder) / "report.html")
        sys.setprofile(note)
        try:
            validate(guard)
        finally:
            sys.setprofile(None)
    return sorted(called)


def try_parts(names: list[str], rank: int | None) -> dict[str, Any]:
    """Validate once for each part, where it raises on one rank or on all.

    Returns:
        For each part the numbers, what was found, the exception that came out, whether it was called, and what the
        report holds.
    """
    parts = find_parts()
    outcomes: dict[str, Any] = {"plain": validate(), "correct": validate(make_guard())}
    for name in names:
        with tempfile.TemporaryDirectory() as folder:
            report = Path(folder) / "report.html"
            outcomes[name] = {"numbers": None, "found": [], "error": ""}
            here = rank is None or torch.distributed.get_rank() == rank
            broken = Broken(parts[name])
            print("part", name, flush=True)
            guard = make_guard(report)
            with broken if here else contextlib.nullcontext():
                try:
                    outcomes[name]["numbers"] = validate(guard)
                except Exception as error:  # the program has none of its own
                    outcomes[name]["error"] = f"{type(error).__name__}: {error}"
            outcomes[name]["found"] = [finding.key or finding.code for finding in guard.findings]
            outcomes[name]["reached"] = broken.calls > 0
            outcomes[name]["report"] = report.read_text() if report.exists() else ""
    return outcomes
