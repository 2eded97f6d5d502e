"""What rules look at: the log calls and metrics of one stage, as all ranks told of them."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, Literal

from torch import Tensor

from lightning_retrieval_guard.findings import Effect, Finding, same_number
from lightning_retrieval_guard.observe.keys import LogCall, WeightCounts
from lightning_retrieval_guard.observe.unregistered import Unregistered
from lightning_retrieval_guard.retrieval.combine import LocalRows
from lightning_retrieval_guard.retrieval.facts import tell
from lightning_retrieval_guard.retrieval.plan import Plan
from lightning_retrieval_guard.retrieval.values import Outcome
from lightning_retrieval_guard.settings import QueryScope

WeightFault = Literal["LRG101", "LRG102", "LRG103"]


@dataclass
class KeyFacts(WeightCounts, LogCall):
    """One logged key on one rank. Numbers are those of the epoch so far, before any reduction over ranks.

    Attributes:
        calls: How often it was logged.
        synced: Whether the metric behind it combined all ranks.
        source: The name of the rows behind it.
        value: The running value: the weighted sum for a mean; ``None`` for a Metric object.
        weight: The running sum of batch sizes, for a mean.
        names_devices: Whether the source of the ``batch_size`` argument names the number of devices.
        lacks_value: What ``value`` lacks to be weighted by samples.
        lacks_weight: What ``weight`` lacks to be the number of samples.
    """

    calls: int = 0
    synced: bool = False
    source: str | None = None
    value: float | None = None
    weight: float | None = None
    names_devices: bool = False
    lacks_value: float = 0.0
    lacks_weight: float = 0.0

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
    plan: Plan
    local: LocalRows
    combined: Outcome | None = None

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
    def value_as_combined(self) -> float | None:
        """What torchmetrics makes of the rows, where this rank can tell.

        Rows that all ranks hold count once for each rank, and ids that restart merge different queries.
        """
        ranks = len(self.plan.facts)
        if not self.plan.gathered and ranks > 1:
            return None
        merged = self.local.with_plan(replace(self.plan, restarting=False))
        return _number(merged.outcome(self.name, copies=ranks).value)


@dataclass
class KeyView:
    """One logged key on all ranks.

    Attributes:
        facts: What each rank told of it, ``None`` where a rank did not log it.
        source: The rows behind the value, if it came from a retrieval metric.
        computed: The epoch value that Lightning computed, once it has and where the guard did not replace it.
        evaluates: Whether the stage is no training, so that a number is meant to be a result.
        corrected: Whether the guard put the reference in the place of the logged number.
        replaced: Whether the guard computes in place of the metric, so that the values are not the program's own.
    """

    facts: tuple[KeyFacts | None, ...]
    source: SourceView | None = None
    computed: float | None = None
    replaced: bool = False
    evaluates: bool = True
    corrected: bool = False

    @cached_property
    def present(self) -> list[KeyFacts]:
        """What the ranks told that logged the key, in order of rank."""
        return [own for own in self.facts if own is not None]

    @property
    def first(self) -> KeyFacts:
        """What the lowest rank told that logged the key."""
        return self.present[0]

    @property
    def world_size(self) -> int:
        """The number of ranks."""
        return len(self.facts)

    @property
    def is_reduced(self) -> bool:
        """Whether Lightning reduces the value over the ranks."""
        first = self.first
        return first.sync_dist and not first.rank_zero_only and self.world_size > 1

    @property
    def is_shared(self) -> bool:
        """Whether every rank is meant to log the key and the guard may judge and correct it."""
        first = self.first
        return not first.own_group and (first.sync_dist or not first.rank_zero_only)

    def total(self, attribute: str) -> float:
        """The sum of one number over the ranks that logged the key."""
        return sum(getattr(own, attribute) or 0.0 for own in self.present)

    # --- the number that was logged ---------------------------------------------------------------------------

    @cached_property
    def logged(self) -> float | None:
        """The number that reaches the logger of rank zero without a correction, where it is known."""
        first, source = self.first, self.source
        if source is not None and first.kind != "forward":
            shown = self.computed if first.kind == "metric" and not self.replaced else None
            if shown is not None:
                return shown
            if self.replaced or first.kind == "metric":
                if source.synchronises or self.world_size == 1:
                    return source.value_as_combined
                if first.kind == "metric" or not first.in_step:
                    return None
        return self.computed if first.value is None else self.plain_value

    @cached_property
    def plain_value(self) -> float | None:
        """What Lightning makes of the values that were logged."""
        if self.first.value is None or not self.is_reduced:
            return self.facts[0].own_value if self.facts[0] is not None else None
        if self.first.reduction == "mean":
            return _ratio(self.total("value") / self.world_size, self.floored_weight)
        return self._reduce([own.value for own in self.present if own.value is not None])

    @property
    def floored_weight(self) -> float:
        """The mean over ranks of the summed batch sizes, as Lightning takes it: integers are floored."""
        mean = self.total("weight") / self.world_size
        return math.floor(mean) if all(own.integral for own in self.present) else mean

    def _reduce(self, values: Sequence[float]) -> float | None:
        functions: dict[str, Callable[[Sequence[float]], float]] = {"sum": sum, "min": min, "max": max}
        function = functions.get(self.first.reduction)
        return float(function(values)) if function is not None and values else None

    # --- the number one process would have logged -------------------------------------------------------------

    @cached_property
    def reference(self) -> float | None:
        """The reference value, where it is known."""
        if self.shows_source:
            assert self.source is not None
            return self._own_global_value if self.source.value is None else self.source.value
        if self.first.value is None or not self.is_shared:
            return None
        if not self.first.in_step:
            return self.facts[0].own_value if self.facts[0] is not None and self.ranks_agree else None
        if not self.first.sync_dist and self.ranks_agree:
            return self._weighted() if self.weight_fault else self.present[0].own_value
        if self.first.reduction == "mean":
            return self._weighted()
        return self._reduce([own.value for own in self.present if own.value is not None])

    @property
    def _own_global_value(self) -> float | None:
        """The value that the metric itself combined over all ranks, where nothing is wrong with it."""
        first = self.first
        untouched = first.kind == "compute" and first.synced and not first.in_step and not self.replaced
        return first.own_value if untouched and self.ranks_agree else None

    @property
    def shows_source(self) -> bool:
        """Whether the epoch value is meant to be the value of the metric behind it."""
        if self.source is None:
            return False
        first = self.first
        if first.kind == "forward" and self.source.plan.is_ambiguous:
            return False
        once = first.kind == "compute" and not first.in_step and first.calls <= 1
        return first.kind == "metric" or once or first.reduction == "mean"

    def _weighted(self) -> float:
        if self.weight_fault is None:
            return _ratio(self.total("value"), self.total("weight"))
        return self.by_samples

    @property
    def by_samples(self) -> float:
        """The mean of the logged values, weighted by samples."""
        value = self.total("value") + self.total("lacks_value")
        return _ratio(value, self.total("weight") + self.total("lacks_weight"))

    @cached_property
    def ranks_agree(self) -> bool:
        """Whether all ranks have the same number."""
        values = [own.own_value for own in self.facts if own is not None]
        if len(values) < self.world_size or any(value is None for value in values):
            return False
        return all(same_number(value, values[0]) for value in values if value is not None and values[0] is not None)

    @property
    def is_lone_value(self) -> bool:
        """Whether a value of one rank is shown as a result of all, without rows behind it that would tell more."""
        first = self.first
        alone = not first.sync_dist and not first.synced and first.value is not None and self.world_size > 1
        return alone and self.evaluates and len(self.present) == self.world_size and not self.ranks_agree

    @cached_property
    def weight_fault(self) -> WeightFault | None:
        """Which fault the batch sizes of the log calls show, if any."""
        first = self.first
        if first.reduction != "mean" or first.kind == "metric" or not first.in_step:
            return None
        calls = self.total("calls")
        either = self.total("either")
        world = self.total("times_world")
        if self.total("guessed"):
            return "LRG103"
        if world and world + self.total("times_world_nominal") + either == calls:
            return "LRG101"
        if self.total("nominal") + either and self.total("equal") + self.total("nominal") + either == calls:
            return "LRG102"
        return None

    # --- effects ----------------------------------------------------------------------------------------------

    @property
    def effect(self) -> Effect | None:
        """Logged and reference number, where both are known."""
        if self.logged is None or self.reference is None:
            return None
        return Effect(self.logged, self.reference)

    @property
    def order_effect(self) -> Effect | None:
        """Reference, and what Lightning made of the key once it has reduced it."""
        if self.computed is None or self.reference is None:
            return None
        return Effect(self.computed, self.reference)

    @property
    def weight_effect(self) -> Effect | None:
        """What the wrong weights alone do to the mean of the logged values."""
        if self.weight_fault is None or self.first.value is None:
            return None
        return Effect(_ratio(self.total("value"), self.total("weight")), self.by_samples)

    @property
    def floor_effect(self) -> Effect | None:
        """What the floored mean of the batch sizes does to the logged mean."""
        first = self.first
        if not self.is_reduced or first.reduction != "mean" or first.value is None or not first.in_step:
            return None
        if not all(own.integral for own in self.present) or self.total("weight") % self.world_size == 0:
            return None
        assert self.plain_value is not None
        return Effect(self.plain_value, _ratio(self.total("value"), self.total("weight")))


@dataclass
class StageView:
    """One stage of one epoch on all ranks.

    Attributes:
        stage: ``"train"``, ``"sanity_check"``, ``"validate"`` or ``"test"``.
        world_size: The number of ranks.
        keys: The logged keys, in the order of the lowest rank that logged them.
        sources: The retrieval metrics that hold rows.
        orders: For every rank the storage keys that Lightning combines over ranks, in the order of logging.
        batches: The number of batches that each rank has seen.
        repeated: How many samples the sampler repeated over all ranks.
        declared_scope: What the user declared about query ids.
        monitored: Keys that a checkpoint, early stopping or a scheduler monitors.
        unregistered: Metrics that are no part of the module.
        found: What the other rules say, for a rule that comes after them.
    """

    stage: str
    world_size: int
    keys: list[KeyView] = field(default_factory=list)
    sources: list[SourceView] = field(default_factory=list)
    orders: list[list[str]] = field(default_factory=list)
    batches: list[int] = field(default_factory=list)
    repeated: int = 0
    declared_scope: QueryScope = "auto"
    monitored: frozenset[str] = frozenset()
    unregistered: list[Unregistered] = field(default_factory=list)
    found: list[Finding] = field(default_factory=list)

    def knows_reference(self, key: KeyView) -> bool:
        """Whether the key's reference value is what one process would have logged.

        A plain value is averaged over its batch already. Where the sampler repeated samples, nobody can tell what it
        would be without them.
        """
        return key.shows_source or not self.repeated


def orders_that_meet(orders: Iterable[list[str]], batches: Sequence[int]) -> list[list[str]]:
    """The orders of the ranks that take part in reductions.

    A rank that skipped the loop for lack of batches has nothing to reduce; any other takes part.
    """
    return [order for order, seen in zip(orders, batches, strict=True) if order or seen]


def _number(value: Any) -> float | None:
    if isinstance(value, Tensor) and value.numel() == 1:
        return float(value)
    return value if isinstance(value, float) else None


def _ratio(value: float, weight: float) -> float:
    return value / weight if weight else math.nan
