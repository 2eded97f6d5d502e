"""A logged key on all ranks: what they report of it, and what kind of number it is."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from lightning_retrieval_guard.epoch.facts import ForeignState, KeyFacts
from lightning_retrieval_guard.epoch.source_view import SourceView
from lightning_retrieval_guard.findings import all_same

WeightFault = Literal["times_world_size", "nominal", "guessed"]


@dataclass(frozen=True, slots=True)
class LoggedKey:
    """One logged key on all ranks; ``KeyView`` adds its numbers.

    Attributes:
        facts: What each rank reports of it, ``None`` where a rank did not log it.
        source: The rows that the value is made of, if it came from a retrieval metric.
        parts: Those of the parts, if it is what a composition of metrics comes to at the end of the epoch.
        computed: The epoch value that Lightning computed, once it has and where the guard did not replace it.
        replaced: Whether the guard computes in place of the metric, so that the values are not the program's.
        evaluates: Whether the stage is not training, so that a number is meant to be a result.
        idle: The ranks that have seen no batch.
        recomputed: What its metric computes itself, where the guard had it do so.
        composed: What the composition comes to of the reference values of its parts.
        composed_plain: What it comes to of their values without a guard, where the guard computes in place of a part.
        batches: The batches that each rank has seen; empty where that is not known.
        repeated: What the repeated samples add to the sum over samples, each where it came again; empty where that is
            not known.
    """

    facts: tuple[KeyFacts | None, ...]
    source: SourceView | None = None
    parts: tuple[SourceView, ...] = ()
    computed: float | None = None
    replaced: bool = False
    evaluates: bool = True
    idle: frozenset[int] = frozenset()
    recomputed: float | None = None
    composed: float | None = None
    composed_plain: float | None = None
    batches: tuple[int, ...] = ()
    repeated: tuple[float, ...] = ()

    @property
    def present(self) -> list[KeyFacts]:
        """What the ranks report that logged the key, in order of rank."""
        return [facts for facts in self.facts if facts is not None]

    @property
    def first(self) -> KeyFacts:
        """What the lowest rank reports that logged the key."""
        return self.present[0]

    @property
    def sources(self) -> tuple[SourceView, ...]:
        """The source of the value, or those of the parts of a composition."""
        return self.parts if self.source is None else (self.source,)

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
        return sum(getattr(facts, attribute) or 0.0 for facts in self.present)

    @property
    def is_written(self) -> bool:
        """Whether the program made another number of the metric's value before it logged it."""
        return any(facts.is_written for facts in self.present)

    @property
    def is_of_another_stage(self) -> bool:
        """Whether its metrics were fed by other stages alone, such as one of a validation in the training."""
        return all(facts.elsewhere for facts in self.sources or self.present)

    @property
    def foreign(self) -> ForeignState:
        """What the metric of the key holds that is not of the epoch, or not its own."""
        return self.first if self.source is None else self.source

    @property
    def is_partial(self) -> bool:
        """Whether a value was logged once in many batches, so that nothing tells which samples it stands for."""
        first = self.first
        if not first.in_step or first.kind == "metric" or first.dataloader is not None or self.world_size == 1:
            return False
        # a document of weights alone has no count of batches
        pairs = zip(self.facts, self.batches, strict=False)
        return any(facts is not None and facts.calls == 1 < batches for facts, batches in pairs)

    @property
    def ranks_agree(self) -> bool:
        """Whether all ranks have the same number."""
        values = [facts.rank_value for facts in self.present]
        return len(values) == self.world_size and all_same(values)

    @property
    def shows_running(self) -> bool:
        """Whether the value of a growing metric was logged again and again, and the values are averaged."""
        first = self.first
        if first.kind != "compute" or not first.in_step or first.reduction != "mean":
            return False
        # without rows, only the record of the metric knows its lives
        if self.source is None:
            return any(facts.running for facts in self.present)
        facts = self.source.plan.facts
        return self.total("calls") > len(self.present) and any(
            rank_facts.single_life and rank_facts.updates > 1 for rank_facts in facts
        )

    @property
    def averages_batches(self) -> bool:
        """Whether the values of a metric on single batches are averaged."""
        first = self.first
        if first.kind not in ("compute", "forward") or not first.in_step or first.reduction != "mean":
            return False
        # such as that of the whole epoch, which is logged with the last batch
        is_one_value = first.kind == "compute" and all(facts.synced and facts.calls == 1 for facts in self.present)
        return self.total("calls") > 1 and not is_one_value and not self.shows_running

    @property
    def is_of_batches(self) -> bool:
        """Whether each value that is averaged is that of one rank's batch, which merges nothing."""
        return self.averages_batches and not self.first.synced

    @property
    def splits_queries(self) -> bool:
        """Whether metrics that were made in steps, or reset in them, have seen parts of queries."""
        if self.source is None or not self.averages_batches:
            return False
        return self.parts_queries and not all(facts.single_life for facts in self.source.plan.with_rows)

    @property
    def parts_queries(self) -> bool:
        """Whether queries go on where another value begins: forward() sees one update, and compute() all so far."""
        if self.source is None:
            return False
        plan = self.source.plan
        return plan.spans_updates if self.first.kind == "forward" else plan.spans_batches

    @property
    def may_split_queries(self) -> bool:
        """Whether such metrics may have seen parts of queries, so that nothing tells how much each value counts."""
        if self.source is None or self.source.synchronises or not self.averages_batches:
            return False
        plan = self.source.plan
        whole = all(facts.single_life or facts.one_query_a_sample for facts in plan.with_rows)
        return not (whole or plan.keeps_whole or plan.left_out)

    @property
    def is_no_mean(self) -> bool:
        """Whether the mean of the logged values is not the value of their metric, which keeps no rows."""
        return self.source is None and (self.shows_running or (self.averages_batches and not self.first.mean))

    @property
    def weight_fault(self) -> WeightFault | None:
        """Which fault the batch sizes of the log calls show, if any."""
        first = self.first
        if first.reduction != "mean" or first.kind == "metric" or not first.in_step:
            return None
        # a fault is one only if it explains every call
        calls = self.total("calls")
        either = self.total("either")
        world = self.total("times_world")
        # comes first: where Lightning guessed, no weight was given that could be wrong
        if self.total("guessed"):
            return "guessed"
        if world and world + self.total("times_world_nominal") + either == calls:
            return "times_world_size"
        if self.total("nominal") + either and self.total("equal") + self.total("nominal") + either == calls:
            return "nominal"
        return None
