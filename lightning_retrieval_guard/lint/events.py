"""What the interpreter saw happen, for the rules to judge."""

from __future__ import annotations

import ast
from dataclasses import dataclass, field

from lightning_retrieval_guard.lint.source import ClassInfo, Function, SourceFile
from lightning_retrieval_guard.lint.values import RANK, Arguments, Data, Metric, Value, many

# What a test says of the code under it.
RANK_ZERO, BATCH = "rank zero", "batch"

STEPS = ("training_step", "validation_step", "test_step", "predict_step")
_OUTPUT = Data(RANK, rows="batch", is_batch=True)
_BATCH = (_OUTPUT, Data(ids="rank"), Data())
# What Lightning passes to hooks after ``self``, by position.
HOOKS: dict[str, tuple[Value, ...]] = {
    **dict.fromkeys(STEPS, _BATCH),
    **{f"on_{stage}_batch_start": _BATCH for stage in ("train", "validation", "test", "predict")},
    **{f"on_{stage}_batch_end": (_OUTPUT, *_BATCH) for stage in ("train", "validation", "test", "predict")},
    **{f"on_{stage}_epoch_{end}": () for stage in ("train", "validation", "test") for end in ("start", "end")},
    **{f"{stage}_epoch_end": (many(_OUTPUT, rows="rank"),) for stage in ("training", "validation", "test")},
    **{f"{stage}_step_end": (_OUTPUT,) for stage in ("training", "validation", "test")},
    **{f"on_{stage}_{end}": () for stage in ("fit", "train", "validation", "test") for end in ("start", "end")},
}


@dataclass(frozen=True)
class Event:
    """One call."""

    kind: str  # "feed", "compute", "reset", "log", "logger", "functional" or "collective"
    node: ast.Call
    hook: str  # the hook or function that Lightning or the user calls
    functions: tuple[Function, ...]  # those around it, outermost first
    guards: frozenset[str]  # what the tests around it say
    arguments: Arguments
    metric: Metric | None = None  # where the kind has one; None where it is not known
    name: str = ""  # of the method or function

    @property
    def source(self) -> SourceFile:
        """The file it stands in."""
        return self.functions[-1].source

    @property
    def is_in_step(self) -> bool:
        """Whether it happens once for each batch."""
        return self.hook.endswith(("_step", "_batch_start", "_batch_end", "_step_end"))

    @property
    def is_at_epoch_end(self) -> bool:
        """Whether it happens once, after all batches."""
        return self.hook.endswith(("_epoch_end", "_validation_end", "_test_end"))

    @property
    def is_between_epochs(self) -> bool:
        """Whether it happens before or after all batches."""
        is_start = self.hook.endswith("_start") and "batch" not in self.hook
        return self.is_at_epoch_end or is_start or self.hook in ("setup", "teardown", "__init__")

    @property
    def is_evaluation(self) -> bool:
        """Whether it belongs to a validation or a test."""
        return "validation" in self.hook or "test" in self.hook

    @property
    def makes_metric(self) -> bool:
        """Whether the metric is made by the function that this happens in, or by one around it."""
        call = self.metric.identity if self.metric else None
        return isinstance(call, ast.Call) and any(call in ast.walk(function.node) for function in self.functions)


@dataclass
class Story:
    """All that was seen of one class, in order."""

    cls: ClassInfo
    events: list[Event] = field(default_factory=list)
    stores: dict[str, list[tuple[ast.expr, SourceFile, Value]]] = field(default_factory=dict)  # of attributes

    def of(self, kind: str, metric: Metric | None = None) -> list[Event]:
        """The events of a kind, all of them or those of one metric."""
        events = [event for event in self.events if event.kind == kind]
        return events if metric is None else [event for event in events if metric.is_same(event.metric)]
