"""What rules look at: the log calls and metrics of one epoch, as all ranks know them; nothing changes once made."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

from lightning_retrieval_guard.epoch.facts import ComputeCall, FlattenedCall, KeyFacts, MergedHow, Unregistered
from lightning_retrieval_guard.epoch.source_view import SourceView
from lightning_retrieval_guard.epoch.states import StateView
from lightning_retrieval_guard.findings import Effect, same_number
from lightning_retrieval_guard.settings import QueryScope

WeightFault = Literal["times_world_size", "nominal", "guessed"]


@dataclass(frozen=True, slots=True)
class KeyView:
    """One logged key on all ranks.

    Attributes:
        facts: What each rank reports of it, ``None`` where a rank did not log it.
        source: The rows behind the value, if it came from a retrieval metric.
        computed: The epoch value that Lightning computed, once it has and where the guard did not replace it.
        replaced: Whether the guard computes in place of the metric, so that the values are not the program's own.
        evaluates: Whether the stage is not training, so that a number is meant to be a result.
        idle: The ranks that have seen no batch.
        asked: What the metric behind it says itself, where the guard has asked it.
        batches: The batches that each rank has seen; empty where that is not known.
    """

    facts: tuple[KeyFacts | None, ...]
    source: SourceView | None = None
    computed: float | None = None
    replaced: bool = False
    evaluates: bool = True
    idle: frozenset[int] = frozenset()
    asked: float | None = None
    batches: tuple[int, ...] = ()

    @property
    def present(self) -> list[KeyFacts]:
        """What the ranks report that logged the key, in order of rank."""
        return [own for own in self.facts if own is not None]

    @property
    def first(self) -> KeyFacts:
        """What the lowest rank reports that logged the key."""
        return self.present[0]

    @property
    def shows_object(self) -> bool:
        """Whether it shows what a metric comes to at the end of the epoch."""
        return self.first.kind == "metric" or (self.first.kind == "compute" and not self.first.in_step)

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
        if first.own_group or first.sync_dist or not first.rank_zero_only:
            return not first.own_group
        # weights that count the samples of all ranks say that the number is meant for all of them
        return None not in self.facts and self.weight_fault == "times_world_size"

    def total(self, attribute: str) -> float:
        """The sum of one number over the ranks that logged the key."""
        return sum(getattr(own, attribute) or 0.0 for own in self.present)

    # --- the number that was logged ---------------------------------------------------------------------------

    @property
    def logged(self) -> float | None:
        """The number that reaches the logger of rank zero without a correction, where it is known."""
        first, source = self.first, self.source
        if source is not None and first.kind != "forward":
            shown = self.computed if first.kind == "metric" and not self.replaced else None
            if shown is not None:
                return shown
            if self.replaced or (first.kind == "metric" and not source.syncs_itself):
                if source.synchronises or self.world_size == 1:
                    return source.as_combined
                if first.kind == "metric" or not first.in_step:
                    return None
        return self.computed if first.value is None else self.plain_value

    @property
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

    @property
    def reference(self) -> float | None:
        """The reference value, where it is known; it is a finite number."""
        value = self._reference
        return value if value is not None and math.isfinite(value) else None

    @property
    def _reference(self) -> float | None:
        if self.asked is not None or self.is_no_mean:
            return self.asked
        if self.merged_how in ("rows", "update") or self.is_written:
            return None
        if self.source is not None and (self.source.plan.ids_may_restart or self.source.plan.pool_of_rank):
            return None
        if self.parts_queries:
            return None
        if self.shows_source:
            assert self.source is not None
            return self._own_global_value if self.source.value is None else self.source.value
        if self.first.value is None or not self.is_shared:
            return None
        if self.is_partial:
            return None
        if not self.first.in_step:
            return self.facts[0].own_value if self.facts[0] is not None and self.ranks_agree else None
        if not self.first.sync_dist and self.ranks_agree:
            return self._weighted() if self.weight_fault else self.present[0].own_value
        if self.first.reduction == "mean":
            return self._weighted()
        return self._reduce([own.value for own in self.present if own.value is not None])

    @property
    def is_written(self) -> bool:
        """Whether the program made another number of the metric's value before it logged it."""
        return any(own.is_written for own in self.present)

    @property
    def merged(self) -> str:
        """Why the metric would hold another state than that of its compute group, in words."""
        return self.first.merged if self.source is None else self.source.merged

    @property
    def merged_how(self) -> MergedHow:
        """By what that is seen."""
        return self.first.merged_how if self.source is None else self.source.merged_how

    @property
    def is_partial(self) -> bool:
        """Whether a value was logged once in many batches, so that nothing tells which samples it stands for."""
        first = self.first
        if not first.in_step or first.kind == "metric" or first.dataloader is not None or self.world_size == 1:
            return False
        pairs = zip(self.facts, self.batches, strict=False)
        return any(facts is not None and facts.calls == 1 < batches for facts, batches in pairs)

    @property
    def _own_global_value(self) -> float | None:
        """The value that the metric itself combined over all ranks, where nothing is wrong with it."""
        first = self.first
        untouched = first.kind == "compute" and first.synced and not first.in_step and not self.replaced
        return first.own_value if untouched and self.ranks_agree else None

    @property
    def shows_source(self) -> bool:
        """Whether the epoch value is meant to be the value of the metric behind it."""
        if self.source is None or self.is_written:
            return False
        first = self.first
        if self.parts_queries or self._may_part_queries or (first.kind == "forward" and self.source.plan.is_ambiguous):
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

    @property
    def ranks_agree(self) -> bool:
        """Whether all ranks have the same number."""
        values = [own.own_value for own in self.facts if own is not None]
        if len(values) < self.world_size or any(value is None for value in values):
            return False
        return all(same_number(value, values[0]) for value in values if value is not None and values[0] is not None)

    @property
    def differs(self) -> bool:
        """Whether every rank that has seen a batch logged the key, and not all the same number."""
        values = [own.own_value for own in self.facts if own is not None]
        missing = any(own is None and rank not in self.idle for rank, own in enumerate(self.facts))
        if missing or None in values:
            return False
        return not all(same_number(value, values[0]) for value in values if value is not None and values[0] is not None)

    @property
    def is_lone_value(self) -> bool:
        """Whether a value of one rank is shown as a result of all, without rows behind it that would tell more."""
        first = self.first
        alone = not first.sync_dist and not first.synced and first.value is not None and self.world_size > 1
        return alone and self.evaluates and self.differs

    @property
    def weight_fault(self) -> WeightFault | None:
        """Which fault the batch sizes of the log calls show, if any."""
        first = self.first
        if first.reduction != "mean" or first.kind == "metric" or not first.in_step:
            return None
        calls = self.total("calls")
        either = self.total("either")
        world = self.total("times_world")
        if self.total("guessed"):
            return "guessed"
        if world and world + self.total("times_world_nominal") + either == calls:
            return "times_world_size"
        if self.total("nominal") + either and self.total("equal") + self.total("nominal") + either == calls:
            return "nominal"
        return None

    # --- values of batches ------------------------------------------------------------------------------------

    @property
    def shows_running(self) -> bool:
        """Whether the value of a growing metric was logged again and again, and the values are averaged."""
        first = self.first
        if first.kind != "compute" or not first.in_step or first.reduction != "mean":
            return False
        if self.source is None:
            return any(own.running for own in self.present)
        facts = self.source.plan.facts
        return self.total("calls") > len(self.present) and any(own.single_life and own.updates > 1 for own in facts)

    @property
    def averages_batches(self) -> bool:
        """Whether the values of a metric on single batches are averaged."""
        first = self.first
        if first.kind not in ("compute", "forward") or not first.in_step or first.reduction != "mean":
            return False
        return self.total("calls") > 1 and not self.shows_running

    @property
    def parts_queries(self) -> bool:
        """Whether metrics that were made in steps, or reset in them, have seen parts of queries."""
        if self.source is None or not self.averages_batches:
            return False
        plan = self.source.plan
        return plan.spans_updates and not all(own.single_life for own in plan.facts if own.rows)

    @property
    def _may_part_queries(self) -> bool:
        """Whether such metrics may have seen parts of queries, so that nothing tells how much each value counts."""
        if self.source is None or self.source.synchronises or not self.averages_batches:
            return False
        plan = self.source.plan
        whole = all(own.single_life or own.one_query_a_sample for own in plan.facts if own.rows)
        return not (whole or plan.ids_restart or plan.left_out)

    @property
    def is_no_mean(self) -> bool:
        """Whether the mean of the logged values is not the value of the metric behind them, which keeps no rows."""
        return self.source is None and (self.shows_running or (self.averages_batches and not self.first.mean))

    @property
    def batch_mean(self) -> float:
        """The mean of the logged values of all ranks, weighted by samples as far as they are known."""
        return self._weighted()

    @property
    def can_ask(self) -> bool:
        """Whether the metric behind the key, which keeps no rows, can be asked for the value of the epoch."""
        able = len(self.present) == self.world_size and all(facts.whole for facts in self.present)
        return able and self.is_shared and self.is_no_mean

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
        """What the wrong weights alone do to the mean of the logged values; no number that was logged."""
        if self.weight_fault is None or self.first.value is None or self.is_partial:
            return None
        return Effect(_ratio(self.total("value"), self.total("weight")), self.by_samples)

    @property
    def floor_effect(self) -> Effect | None:
        """What the floored mean of the batch sizes does to the logged mean, whatever the weights should be."""
        first = self.first
        if not self.is_reduced or first.reduction != "mean" or first.value is None or not first.in_step:
            return None
        if not all(own.integral for own in self.present) or self.total("weight") % self.world_size == 0:
            return None
        assert self.plain_value is not None
        return Effect(self.plain_value, _ratio(self.total("value"), self.total("weight")))


@dataclass(frozen=True, slots=True)
class EpochView:
    """One stage of one epoch on all ranks: the document that rules judge.

    Attributes:
        stage: ``"train"``, ``"sanity_check"``, ``"validate"`` or ``"test"``.
        world_size: The number of ranks.
        keys: The logged keys, in the order of the lowest rank that logged them.
        sources: The retrieval metrics that hold rows.
        states: The other metrics that were fed, where several ranks combine them.
        orders: For every rank the storage keys that Lightning combines over ranks, in the order of logging.
        batches: The number of batches that each rank has seen.
        repeated: How many samples the sampler repeated over all ranks.
        declared_scope: What the user declared about query ids.
        monitored: Keys that a checkpoint, early stopping or a scheduler monitors.
        unregistered: Metrics that are not part of the module.
        computed_alone: Metrics that some ranks computed and others did not, where the guard supplied the value.
        flattened: Calls of functional retrieval metrics that scored a batch as one query.
        gathers_updates: Whether the installed torchmetrics gathers every update by itself.
        corrected: Storage keys whose number was replaced by the reference.
        is_complete: Whether nothing can be logged any more.
        explained: What findings of other rules are about, for a rule that looks for the rest.
    """

    stage: str
    world_size: int
    keys: tuple[KeyView, ...] = ()
    sources: tuple[SourceView, ...] = ()
    states: tuple[StateView, ...] = ()
    orders: tuple[tuple[str, ...], ...] = ()
    batches: tuple[int, ...] = ()
    repeated: int = 0
    declared_scope: QueryScope = "auto"
    monitored: frozenset[str] = frozenset()
    unregistered: tuple[Unregistered, ...] = ()
    computed_alone: tuple[ComputeCall, ...] = ()
    flattened: tuple[FlattenedCall, ...] = ()
    gathers_updates: bool = True
    corrected: frozenset[str] = frozenset()
    is_complete: bool = True
    explained: frozenset[str] = frozenset()

    def knows_reference(self, key: KeyView) -> bool:
        """Whether the reference is what one process would have logged: where samples came again, these were found."""
        if not self.repeated:
            return True
        return key.shows_source and key.source is not None and key.source.plan.left_out == self.repeated

    def states_behind(self, key: KeyView) -> list[StateView]:
        """The metrics that keep states behind a key."""
        return [states for states in self.states if states.name in key.first.shows]

    def leaves_out_repeated(self, key: KeyView) -> bool:
        """Whether the metrics that keep states behind a key were merged without the repeated samples."""
        shown = self.states_behind(key)
        return (key.shows_object or key.asked is not None) and bool(shown) and all(one.counts_once for one in shown)

    @property
    def orders_that_meet(self) -> list[tuple[str, ...]]:
        """The orders of the ranks that take part in reductions; one that skipped the loop has nothing to reduce."""
        return [order for order, seen in zip(self.orders, self.batches, strict=True) if order or seen]


def _ratio(value: float, weight: float) -> float:
    return value / weight if weight else math.nan
