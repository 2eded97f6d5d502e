"""What rules look at: the log calls and metrics of one epoch, as all ranks know them; nothing changes once made.

Below stands how the keys come from what every rank reports.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from lightning_retrieval_guard.epoch.facts import ComputeCall, FlattenedCall, KeyFacts, Unregistered
from lightning_retrieval_guard.epoch.keys import LoggedKey
from lightning_retrieval_guard.epoch.repeated_samples import NOT_REPEATED, ROUNDING, Repeated
from lightning_retrieval_guard.epoch.source_view import SourceView
from lightning_retrieval_guard.epoch.states import StateView
from lightning_retrieval_guard.findings import Effect


@dataclass(frozen=True, slots=True)
class KeyView(LoggedKey):
    """One logged key on all ranks, with the number that was logged and the one that one process would have logged."""

    @property
    def logged(self) -> float | None:
        """The number that reaches the logger of rank zero without a correction, where it is known."""
        first, source = self.first, self.source
        if self.parts and self.replaced:
            return self.composed_plain
        if source is not None and first.kind != "forward":
            shown = self.computed if first.kind == "metric" and not self.replaced else None
            if shown is not None:
                return shown
            if self.replaced or (first.kind == "metric" and not source.syncs_itself):
                # Lightning shows what torchmetrics makes of the rows of all ranks
                if source.synchronises or self.world_size == 1:
                    return source.as_combined
                if first.kind == "metric" or not first.in_step:
                    return None
        return self.computed if first.value is None else self.plain_value

    @property
    def plain_value(self) -> float | None:
        """What Lightning makes of the values that were logged."""
        if self.first.value is None or not self.is_reduced:
            return self.facts[0].rank_value if self.facts[0] is not None else None
        if self.first.reduction == "mean":
            # Lightning averages sums and weights over ranks by themselves, and divides the averages
            weight = self.total("weight") / self.world_size
            # of integers it floors the average
            weight = math.floor(weight) if all(facts.integral for facts in self.present) else weight
            return _ratio(self.total("value") / self.world_size, weight)
        return self._reduce(self._values)

    @property
    def _values(self) -> list[float]:
        return [facts.value for facts in self.present if facts.value is not None]

    @property
    def is_count(self) -> bool:
        """Whether it is a sum of whole numbers, which comes to the same whatever the batches are."""
        return self.first.reduction == "sum" and all(value.is_integer() for value in self._values)

    @property
    def may_be_share(self) -> bool:
        """Whether each rank came to the same sum, and nothing tells whether that is its share of it, or all of it."""
        is_sum = self.first.reduction == "sum" and not self.first.synced
        return is_sum and self.world_size > 1 and self.ranks_agree and self.first.in_step != self.is_reduced

    def _reduce(self, values: Sequence[float]) -> float | None:
        functions: dict[str, Callable[[Sequence[float]], float]] = {"sum": sum, "min": min, "max": max}
        function = functions.get(self.first.reduction)
        return float(function(values)) if function is not None and values else None

    @property
    def reference(self) -> float | None:
        """The reference value, where it is known; it is a finite number."""
        value = self._reference
        return value if value is not None and math.isfinite(value) else None

    @property
    def _reference(self) -> float | None:
        if self.recomputed is not None or self.is_no_mean:
            return self.recomputed
        # nobody knows what the metric, or the program, would have made of it on one device
        if self.foreign.merged_how in ("rows", "update") or self.is_written or self.first.holds_unseen_rows:
            return None
        if self.is_of_another_stage:
            return None
        # one device may have had other queries, or other candidates; forward() has seen those of its batch alone
        merges = not (self.is_of_batches and self.first.kind == "forward")
        if any((merges and source.plan.ids_may_restart) or source.plan.pool_of_rank for source in self.sources):
            return None
        if self.parts:
            return self.composed
        # a part of a query ranks against fewer rows, and the parts cannot be put together again
        if self.splits_queries:
            return None
        if self.shows_source:
            assert self.source is not None
            if self.source.hangs_on_order and self.first.kind == "metric":
                return None
            return self._value_of_metric if self.source.value is None else self.source.value
        if self.first.value is None or not self.is_shared:
            return None
        # which samples such a value stands for is not known
        if self.is_partial or self.may_be_share:
            return None
        if not self.first.in_step:
            # logged once an epoch: a number that all ranks have, one device has too
            return self.facts[0].rank_value if self.facts[0] is not None and self.ranks_agree else None
        if self.repeated:
            # the mean over samples that counts repeated ones once
            value = self.total("value") + self.total("lacks_value") - sum(self.repeated)
            return _ratio(value, self.total("weight") + self.total("lacks_weight") - len(self.repeated))
        if self.first.reduction != "mean" and self.world_size > 1 and not self.is_count:
            return None  # one device may have other batches, of which it takes the sum or the maximum
        if not self.first.sync_dist and self.ranks_agree:
            return self.batch_mean if self.weight_fault else self.present[0].rank_value
        return self.batch_mean if self.first.reduction == "mean" else self._reduce(self._values)

    @property
    def _value_of_metric(self) -> float | None:
        """The value that the metric itself combined over all ranks, where nothing is wrong with it."""
        first = self.first
        untouched = first.kind == "compute" and first.synced and not first.in_step and not self.replaced
        return first.rank_value if untouched and self.ranks_agree else None

    @property
    def shows_source(self) -> bool:
        """Whether the epoch value is meant to be the value of its source."""
        if self.source is None or self.is_written:
            return False
        first = self.first
        if self.splits_queries or self.may_split_queries or (first.kind == "forward" and self.source.plan.is_ambiguous):
            return False
        once = first.kind == "compute" and not first.in_step and first.calls <= 1
        return first.kind == "metric" or once or first.reduction == "mean"

    @property
    def by_samples(self) -> float:
        """The mean of the logged values, weighted by samples."""
        value = self.total("value") + self.total("lacks_value")
        return _ratio(value, self.total("weight") + self.total("lacks_weight"))

    @property
    def batch_mean(self) -> float:
        """The mean of the logged values of all ranks, weighted by samples as far as they are known."""
        if self.weight_fault is None:
            return _ratio(self.total("value"), self.total("weight"))
        return self.by_samples

    @property
    def effect(self) -> Effect | None:
        """Logged and reference number, where both are known."""
        if self.logged is None or self.reference is None:
            return None
        return Effect(self.logged, self.reference)

    @property
    def weight_effect(self) -> Effect | None:
        """What the wrong weights alone do to the mean of the logged values; no number that was logged."""
        if self.weight_fault is None or self.first.value is None or self.is_partial:
            return None
        return Effect(_ratio(self.total("value"), self.total("weight")), self.by_samples)


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
        repeated: The samples that came again, of all dataloaders that of which most did.
        repeated_in: Those of each dataloader.
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
    repeated: Repeated = NOT_REPEATED
    repeated_in: Mapping[int, Repeated] = field(default_factory=dict)
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
        # a number that counts a sample twice is no reference
        count = self.repeated_at(key).count
        if not count or key.repeated:
            return True
        if not key.sources:
            return self.leaves_out_repeated(key)
        is_known = bool(key.parts) or key.shows_source
        return is_known and all(source.plan.left_out == count for source in key.sources)

    def repeated_at(self, key: KeyView) -> Repeated:
        """The samples that came again in what a key shows."""
        dataloader = key.first.fed_in if key.first.dataloader is None else key.first.dataloader
        return self.repeated if dataloader is None else self.repeated_in.get(dataloader, NOT_REPEATED)

    def keys_of(self, source: SourceView) -> list[KeyView]:
        """The keys that show a metric, or a composition of it and others."""
        return [key for key in self.keys if any(shown is source for shown in key.sources)]

    def states_of(self, key: KeyView) -> list[StateView]:
        """The metrics with states that a key shows."""
        return [states for states in self.states if states.name in key.first.shows]

    def leaves_out_repeated(self, key: KeyView) -> bool:
        """Whether the metrics with states that a key shows were merged without the repeated samples."""
        if not key.first.shows_object and key.recomputed is None:
            return False
        shown = self.states_of(key)
        return bool(shown) and all(states.counts_once for states in shown)


def _ratio(value: float, weight: float) -> float:
    return value / weight if weight else math.nan


# --- from the messages of the ranks ---------------------------------------------------------------------------

Message = dict[str, Any]
"""What one rank reports in one exchange; anything that JSON can hold."""


def make_key_views(
    stage: str, messages: Sequence[Message], sources: Mapping[str, SourceView], corrects: bool
) -> list[KeyView]:
    """The keys of all ranks, in the order of the lowest rank that logged them.

    Args:
        stage: The stage.
        messages: In order of rank.
        sources: The metrics that any rank reports, by name.
        corrects: Whether the guard computes in place of metrics that keep rows.
    """
    ranks = [{key.storage: key for key in map(KeyFacts.from_payload, message["keys"])} for message in messages]
    storages = dict.fromkeys(storage for keys in ranks for storage in keys)
    batches = tuple(message["batches"] for message in messages)
    idle = frozenset(rank for rank, count in enumerate(batches) if not count)
    views = []
    for storage in storages:
        facts = tuple(keys.get(storage) for keys in ranks)
        source = _source_of(facts, sources)
        parts = _parts_of(facts, sources)
        replaced = corrects and any(_is_replaced(facts, shown) for shown in (source, *parts))
        # a number of the training is often meant for one rank
        evaluates = stage != "train"
        views.append(KeyView(facts, source, parts, replaced=replaced, evaluates=evaluates, idle=idle, batches=batches))
    return with_repeated(views, min(message["repeated"] for message in messages))


def with_repeated(keys: list[KeyView], repeated: int) -> list[KeyView]:
    """The keys, with what repeated samples add to plain means, where both ranks have the same for each of them.

    A step may reorder its samples, and then it is another sample that both have. A whole number, such as a hit, may be
    the same by chance. It counts where means of the same step show the order: all are the same, and one is not whole.
    """
    pairs_of = {key.first.storage: _repeated_pairs(key) for key in keys}
    taken_apart = {storage: pairs for storage, pairs in pairs_of.items() if len(pairs) == repeated > 0}
    same = {storage: tuple(again for again, _ in pairs) for storage, pairs in taken_apart.items() if _agree(pairs)}
    whole = {storage for storage, numbers in same.items() if all(number.is_integer() for number in numbers)}
    if len(same) < len(taken_apart) or len(whole) == len(same):
        same = {storage: numbers for storage, numbers in same.items() if storage not in whole}
    return [replace(key, repeated=same.get(key.first.storage, ())) for key in keys]


def _repeated_pairs(key: KeyView) -> list[tuple[float, float]]:
    """What each repeated sample adds to a plain mean where it came again, and where it came first.

    Empty where that is not known of all. Values of metrics are left to what is known of the metrics.
    """
    first = key.first
    weighs_samples = key.weight_fault is not None or all(facts.equal == facts.calls for facts in key.present)
    if first.kind != "plain" or first.reduction != "mean" or None in key.facts or not weighs_samples:
        return []
    again = [(facts.last_sample, facts.last_of) for facts in key.present if facts.last_of is not None]
    pairs = [(last, key.present[rank].first_sample) for last, rank in again]
    complete = [(last, earlier) for last, earlier in pairs if last is not None and earlier is not None]
    return complete if len(complete) == len(pairs) else []


def _agree(pairs: Sequence[tuple[float, float]]) -> bool:
    return all(math.isclose(*pair, rel_tol=ROUNDING, abs_tol=ROUNDING) for pair in pairs)


def _source_of(facts: Sequence[KeyFacts | None], sources: Mapping[str, SourceView]) -> SourceView | None:
    present = [key for key in facts if key is not None]
    # values of different kinds are no value of any one metric
    if any(key.mixed for key in present):
        return None
    names = dict.fromkeys(key.source for key in present if key.source is not None)
    views = [sources[name] for name in names if name in sources]
    # where ranks show different rows, nothing is known of them together
    return views[0] if len(views) == 1 else None


def _parts_of(facts: Sequence[KeyFacts | None], sources: Mapping[str, SourceView]) -> tuple[SourceView, ...]:
    """The sources of the parts that a composition shows at the end of the epoch."""
    shown = dict.fromkeys(name for key in facts if key is not None and key.shows_object for name in key.shows)
    return tuple(sources[name] for name in shown if name in sources)


def _is_replaced(facts: Sequence[KeyFacts | None], source: SourceView | None) -> bool:
    """Whether the guard computes in place of a key's metric."""
    present = [key for key in facts if key is not None]
    if source is None or source.syncs_itself or source.elsewhere or any(key.is_written for key in present):
        return False
    # what a program sees in a step is its own
    if any(key.kind == "forward" or (key.kind == "compute" and key.in_step) for key in present):
        return False
    if source.is_left and all(key.kind == "metric" for key in present):
        return False
    return len(facts) > 1 or source.plan.ids_restart or source.holds_others


def order_of_reductions(message: Message) -> tuple[str, ...]:
    """The storage keys of one rank that Lightning combines over ranks, in order of logging."""
    keys = map(KeyFacts.from_payload, message["keys"])
    return tuple(key.storage for key in keys if not key.own_group and _is_combined(key))


def _is_combined(key: KeyFacts) -> bool:
    return key.synced if key.kind == "metric" else key.sync_dist and not key.rank_zero_only


def flattened_of(exchanges: Sequence[Sequence[Message]]) -> list[FlattenedCall]:
    """The calls of functional metrics that any rank reports in any exchange, each once."""
    calls: dict[str, FlattenedCall] = {}
    for rank, entry in _entries(exchanges, "flattened"):
        call = FlattenedCall(**{**entry, "shape": tuple(entry["shape"])})
        earlier = calls.get(call.target, call)
        calls[call.target] = replace(earlier, ranks=tuple(sorted({*earlier.ranks, rank})))
    return list(calls.values())


def unregistered_of(exchanges: Sequence[Sequence[Message]]) -> list[Unregistered]:
    """What the ranks reported in all exchanges, each metric once; what was reported last counts, and what is worse."""
    by_identity: dict[tuple[str, str, int], Unregistered] = {}
    for rank, fields in _entries(exchanges, "unregistered"):
        entry = Unregistered(**fields)
        identity = (entry.name, entry.path, entry.line)
        earlier = by_identity.get(identity, entry)
        worse = entry if entry.device or not earlier.device else earlier
        ranks = tuple(sorted({*earlier.ranks, rank}))
        by_identity[identity] = replace(worse, storage=entry.storage or earlier.storage, ranks=ranks)
    return list(by_identity.values())


def _entries(exchanges: Sequence[Sequence[Message]], part: str) -> Iterator[tuple[int, dict[str, Any]]]:
    for messages in exchanges:
        for rank, message in enumerate(messages):
            yield from ((rank, entry) for entry in message.get(part, ()))
