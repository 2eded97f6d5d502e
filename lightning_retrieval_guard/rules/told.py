"""What the ranks told of log calls and metrics: what rules look at."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from torch import Tensor

from lightning_retrieval_guard.observe.behind import Behind
from lightning_retrieval_guard.observe.keys import LogCall, WeightCounts
from lightning_retrieval_guard.retrieval.combine import LocalRows
from lightning_retrieval_guard.retrieval.facts import tell
from lightning_retrieval_guard.retrieval.plan import Plan
from lightning_retrieval_guard.retrieval.values import Outcome, Tally


@dataclass
class KeyFacts(Behind, WeightCounts, LogCall):
    """One logged key on one rank. Numbers are those of the epoch so far, before any reduction over ranks.

    Attributes:
        calls: How often it was logged.
        mixed: Whether it shows values of different kinds, or of metrics with different settings.
        synced: Whether the metric behind it combined all ranks.
        source: The name of the rows behind it.
        value: The running value: the weighted sum for a mean; ``None`` for a Metric object.
        weight: The running sum of batch sizes, for a mean.
        names_devices: Whether the source of the ``batch_size`` argument names the number of devices.
        lacks_value: What ``value`` lacks to be weighted by samples.
        lacks_weight: What ``weight`` lacks to be the number of samples.
        suppressed: Codes and prefixes of rules that stay silent at its log calls.
    """

    calls: int = 0
    mixed: bool = False
    synced: bool = False
    source: str | None = None
    value: float | None = None
    weight: float | None = None
    names_devices: bool = False
    lacks_value: float = 0.0
    lacks_weight: float = 0.0
    suppressed: Sequence[str] = ()

    def to_message(self) -> dict[str, Any]:
        """A form that JSON can hold, without what follows from the rest."""
        told = tell(self)
        if self.storage == f"{self.hook}.{self.name}":
            del told["storage"]
        return told

    @classmethod
    def from_message(cls, message: dict[str, Any]) -> KeyFacts:
        """Read what ``to_message`` wrote."""
        return cls(**{"storage": f"{message['hook']}.{message['name']}", **message})

    @property
    def own_value(self) -> float | None:
        """The epoch value of this rank alone."""
        if self.value is None or self.reduction != "mean":
            return self.value
        return self.value / self.weight if self.weight else math.nan


@dataclass
class SourceView:
    """The rows of one metric over all ranks.

    Attributes:
        name: The same on every rank.
        metric: The class of the metric.
        path: The user's file of the first update.
        line: The line in it.
        synced_in_steps: How often ``compute()`` or ``forward()`` combined ranks within steps.
        synchronises: Whether the program lets it combine ranks.
        shown_by_forward: Whether values of its ``forward()`` are logged, so that it may never combine ranks.
        mean: Whether its value is a mean over queries.
        stale: Rows of earlier epochs, on all ranks, that it still holds or held when the epoch began.
        sanity: Whether they all came from the sanity check.
        dropped: Whether the guard has dropped them.
        shared: Rows of another stage or dataloader that it holds, on all ranks.
        suppressed: For every rank that has it the codes and prefixes of rules that stay silent at its first update.
        plan: Which rows count.
        local: This rank's rows.
        combined: The value over all ranks, where rows or sums have travelled for it.
    """

    name: str
    metric: str
    path: str
    line: int
    synced_in_steps: int
    synchronises: bool
    shown_by_forward: bool
    mean: bool
    plan: Plan
    local: LocalRows
    combined: Outcome | None = None
    stale: int = 0
    sanity: bool = False
    dropped: bool = False
    shared: int = 0
    suppressed: Sequence[Sequence[str]] = ()

    @property
    def holds_others(self) -> bool:
        """Whether the metric holds rows that do not belong to the epoch."""
        return self.shared > 0 or (self.stale > 0 and not self.dropped)

    @cached_property
    def outcome(self) -> Outcome:
        """The reference value, as far as it is known."""
        if self.combined is not None:
            return self.combined
        if self.plan.gathered or len(self.plan.facts) == 1:
            return self.local.outcome(self.name)
        return Outcome()

    @property
    def value(self) -> float | None:
        """The reference value where it is one number."""
        return _number(self.outcome.value)

    @cached_property
    def tally(self) -> Tally | None:
        """What decides the values of queries: of all ranks, or of this one where no values have travelled."""
        if self.combined is None and (self.plan.is_ambiguous or self.plan.split):
            return None  # parts of queries tell nothing
        outcome = self.outcome if self.tells_of_all else self.local.outcome(self.name)
        return outcome.tally if outcome.error is None and outcome.tally.queries else None

    @property
    def tells_of_all(self) -> bool:
        """Whether the tally is that of all ranks."""
        return self.combined is not None or self.plan.gathered or len(self.plan.facts) == 1

    @cached_property
    def value_as_combined(self) -> float | None:
        """What torchmetrics makes of the rows, where this rank can tell.

        Rows that all ranks hold count once for each rank, and ids that restart merge different queries. Equal scores
        are ranked by the order of all ranks' rows, which is known where it is the same on all of them.
        """
        if self.holds_others or (not self.plan.gathered and len(self.plan.facts) > 1):
            return None
        outcome = self.local.as_combined.outcome(self.name)
        return None if self.plan.first_counts and outcome.tally.tied else _number(outcome.value)


def _number(value: Any) -> float | None:
    if isinstance(value, Tensor) and value.numel() == 1:
        return float(value)
    return value if isinstance(value, float) else None
