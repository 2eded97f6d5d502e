"""Which expressions are metrics of torchmetrics, and whether they combine ranks in ``compute()``."""

from __future__ import annotations

import ast
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

from lightning_retrieval_guard.lint.classes import Classes
from lightning_retrieval_guard.lint.source import MOST_STEPS, Source

# Classes that hold other metrics, or are no metric by themselves.
_OTHERS = frozenset(
    {
        "BootStrapper",
        "ClasswiseWrapper",
        "CompositionalMetric",
        "FeatureShare",
        "Metric",
        "MetricInputTransformer",
        "MetricTracker",
        "MinMaxMetric",
        "MultioutputWrapper",
        "MultitaskWrapper",
        "Running",
        "RunningMean",
        "RunningSum",
        "WrapperMetric",
    }
)
_SAME_METRIC = ("clone", "to", "cuda", "cpu", "train", "eval")
# Arguments that may change how ranks are combined.
_OWN_SYNC = ("process_group", "dist_sync_fn", "distributed_available_fn")
# Names that switch combining on and off; where a file uses one, nothing is certain.
_SWITCHES = ("sync_on_compute", "_to_sync", "_should_unsync", "distributed_available_fn", "dist_sync_fn")
_SWITCHING = ("sync_context", "sync", "unsync")


@dataclass(frozen=True)
class Metric:
    """A metric that the source builds.

    Attributes:
        kind: The class, such as ``"RetrievalRecall"``.
        synced: Whether it surely combines ranks in ``compute()``.
        call: What builds it.
    """

    kind: str
    synced: bool
    call: ast.Call

    @property
    def is_retrieval(self) -> bool:
        """Whether it groups rows by query ids."""
        return self.kind.startswith("Retrieval")


class Metrics:
    """The metrics of a file."""

    def __init__(self, source: Source, classes: Classes) -> None:
        self._source = source
        self._classes = classes

    def of(self, node: ast.expr, depth: int = 0) -> list[Metric]:
        """The metrics that an expression surely is: one, or those of a collection; none otherwise."""
        node = self._classes.resolve(node)
        if not isinstance(node, ast.Call) or depth > MOST_STEPS:
            return []
        if isinstance(node.func, ast.Attribute) and node.func.attr in _SAME_METRIC:
            return self.of(node.func.value, depth + 1)
        kind = self.kind(node)
        if kind == "MetricCollection":
            return [own for member in _members(node) for own in self.of(member, depth + 1)]
        return [Metric(kind, self._is_synced(node), node)] if kind else []

    def kind(self, call: ast.Call) -> str:
        """The class of torchmetrics that a call builds an object of; empty for anything else."""
        dotted = self._source.dotted(call.func)
        last = dotted.rpartition(".")[2]
        known = dotted.startswith("torchmetrics.") and ".functional." not in dotted
        return last if known and last[:1].isupper() and last not in _OTHERS else ""

    def _is_synced(self, call: ast.Call) -> bool:
        if self._is_switched or any(keyword.arg is None or keyword.arg in _OWN_SYNC for keyword in call.keywords):
            return False
        given = [keyword.value for keyword in call.keywords if keyword.arg == "sync_on_compute"]
        return all(isinstance(value, ast.Constant) and value.value is True for value in given)

    @cached_property
    def _is_switched(self) -> bool:
        return any(
            isinstance(node, ast.Attribute)
            and (
                (node.attr in _SWITCHES and isinstance(node.ctx, ast.Store))
                or (node.attr in _SWITCHING and isinstance(self._source.parents[node], ast.Call))
            )
            for node in self._source.nodes
        )


def _members(collection: ast.Call) -> Iterator[ast.expr]:
    for argument in collection.args:
        if isinstance(argument, ast.Dict):
            yield from argument.values
        elif isinstance(argument, (ast.List, ast.Tuple)):
            yield from argument.elts
        else:
            yield argument


def named(metrics: Sequence[Metric]) -> str:
    """The metrics in words."""
    return metrics[0].kind if len(metrics) == 1 else "the MetricCollection"
