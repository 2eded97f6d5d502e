"""Metrics that keep states in place of rows: which of them torchmetrics cannot combine, and their merged states.

1. ``local`` on every rank: what it reports of the metrics that were fed in a stage; this travels with its message.
2. ``sync`` after the meeting: where ranks were fed unequally, the states of all such metrics go to all ranks at once.
3. ``merged`` when the program computes one of them: its value is that of the merged states.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from torchmetrics import Metric

from lightning_retrieval_guard import _compat
from lightning_retrieval_guard.distributed.payload import read_all
from lightning_retrieval_guard.epoch.states import (
    FIRST,
    LAST,
    Held,
    StateFacts,
    States,
    StateView,
    make_state_views,
    merge_states,
    pack_states,
    seek_repeated,
    unpack_states,
)
from lightning_retrieval_guard.run.context import RunContext
from lightning_retrieval_guard.watch.beside import Beside
from lightning_retrieval_guard.watch.call_site import CallSite
from lightning_retrieval_guard.watch.held_rows import MEBIBYTE
from lightning_retrieval_guard.watch.keys import KeyRecord
from lightning_retrieval_guard.watch.metric_lives import MetricRecord
from lightning_retrieval_guard.watch.metrics import STEP_HOOKS, MetricWatch
from lightning_retrieval_guard.watch.stage import StageRecord
from lightning_retrieval_guard.watch.suppressions import Suppressed, patterns_of
from lightning_retrieval_guard.watch.update_context import OUTSIDE_STAGES, Feed

_Fed = tuple[Metric, MetricRecord]


@dataclass(frozen=True)
class LocalStates:
    """A metric of this rank that was fed in the stage.

    Attributes:
        metric: The metric.
        record: What is known of it; of the member that is fed in its place, where it belongs to a compute group.
        feed: The epoch and the dataloader at hand.
    """

    metric: Metric
    record: MetricRecord
    feed: Feed

    @property
    def suppressed(self) -> Suppressed:
        """What silences rules at the first update."""
        return self.record.suppressed

    @property
    def parts(self) -> dict[str, Any]:
        """The metrics that hold the states, by path."""
        fed = self.record.metric()
        return _compat.metrics_in(self.metric if fed is None else fed)

    @property
    def stamp(self) -> tuple[int, int]:
        """Another one after every reset, and the updates since: wrappers do not count theirs."""
        return self.record.generation, max(part.update_count for part in self.parts.values())

    def facts(self, group: tuple[int, ...] | None) -> StateFacts:
        """What the other ranks hear of it."""
        site, parts = self.record.first_update or CallSite("<unknown>", 1), self.parts.values()
        states = [
            (reduction, state, part)
            for part in parts
            for (_, state), reduction in zip(
                _compat.held_states(part).items(), _compat.state_reductions(part).values(), strict=True
            )
        ]
        joined = [(state, part) for reduction, state, part in states if reduction == "cat" and isinstance(state, list)]
        life, updates = self.stamp
        return StateFacts(
            metric=type(self.metric).__name__,
            path=site.path,
            line=site.line,
            updates=updates,
            life=life,
            lists=tuple(len(state) for how, state, _ in states if isinstance(state, list) and how != "cat"),
            lacks_joined=any(not state for state, _ in joined),
            holds_joined=any(state and _differs_from_nothing(state[0], part) for state, part in joined),
            averages=any(how == "mean" for how, *_ in states),
            last_of=None if self.beside is None else self.beside.last_of,
            fed_repeated=self.record.fed_repeated is not None and self.record.fed_repeated.epoch == self.feed.epoch,
            is_apart=self.beside is not None and self.beside.is_apart,
            stacks=any(not isinstance(state, list) and (how is None or callable(how)) for how, state, _ in states),
            extremes=bool(states) and all(how in ("max", "min") for how, *_ in states),
            group=group,
            suppressed=patterns_of(self.suppressed),
        )

    @property
    def beside(self) -> Beside | None:
        """What it would hold of the dataloader at hand, and without a repeated sample, where that is something else."""
        goes_on = (self.record.beside, self.record.outer)
        return next((beside for beside in goes_on if beside is not None and beside.feed == self.feed), None)

    def held(self) -> States | str:
        """The states to merge of this rank, without metrics that were not fed; or why they cannot be merged."""
        beside = self.beside
        is_other = beside is not None and (beside.last_of is not None or beside.is_apart)
        if beside is not None and is_other and beside.problem:
            return beside.problem
        if beside is not None and is_other:
            states = {path: held for path, held in beside.states.items() if held.updates}
        else:
            states = {
                path: Held(part.update_count, _compat.held_states(part))
                for path, part in self.parts.items()
                if not _compat.is_blank(part)
            }
        inputs = {} if beside is None else {FIRST: beside.first, LAST: beside.last}
        return states | {name: Held(0, {"inputs": samples}) for name, samples in inputs.items() if samples}


def _is_fed_on(earlier: StateView | None, view: StateView) -> bool:
    """Whether a metric was fed since the ranks exchanged facts before, without a reset in between."""
    pairs = zip(earlier.facts, view.facts, strict=True) if earlier is not None else ()
    return any(
        before is not None and now is not None and (before.life, now.updates > before.updates) == (now.life, True)
        for before, now in pairs
    )


def _differs_from_nothing(part: Any, metric: Any) -> bool:
    """Whether a tensor does not go with what torchmetrics sends for an empty list."""
    return bool(part.ndim != 1 or part.dtype != _compat.dtype_of(metric))


@dataclass
class MergeResult:
    """The merged states of a metric, as of the last exchange.

    Attributes:
        name: Of the metric.
        local: The metric.
        stamp: Its stamp then.
        within: A context in which it holds the states.
        is_fault: Whether torchmetrics could not combine the ranks.
        is_apart: Whether they are those of one dataloader or stage alone.
        program_value: What it comes to of its own states, once that was asked for.
    """

    name: str
    local: LocalStates
    stamp: tuple[int, int]
    within: _compat.WithStates
    is_fault: bool
    is_apart: bool
    program_value: Any = None


class StateMerger:
    """Sees to metrics that keep states, where torchmetrics cannot combine the ranks.

    Args:
        run: The run.
        watch: Knows the metrics.
        by_name: Gives metrics their names, which are the same on every rank.
    """

    def __init__(
        self, run: RunContext, watch: MetricWatch, by_name: Callable[[Iterable[_Fed]], dict[str, _Fed]]
    ) -> None:
        self._run = run
        self._watch = watch
        self._by_name = by_name
        self._results: dict[int, MergeResult] = {}
        self._views: dict[tuple[str, tuple[int, ...]], StateView] = {}

    def clear(self) -> None:
        """The epoch is over."""
        self._results.clear()
        self._views.clear()

    def local(self, stage: StageRecord, keys: Iterable[KeyRecord]) -> dict[str, LocalStates]:
        """The metrics of this rank that were fed in the stage or that keys show, and that combine all ranks.

        On one device only those are of interest that another dataloader or stage has fed too.
        """
        shown = {id(part) for key in keys for part in key.shown_metrics}
        local: dict[str, LocalStates] = {}
        for name, (metric, record) in self._by_name(self._candidates()).items():
            fed = record.leader or record
            states = LocalStates(metric, fed, stage.feeding.feed)
            is_needed = self._run.world_size > 1 or (states.beside is not None and states.beside.is_apart)
            if is_needed and (stage.stage in fed.fed_by or id(metric) in shown):
                local[name] = states
        return local

    def _candidates(self) -> Iterator[_Fed]:
        for metric, record in self._watch.records():
            if record.is_rows or record.created_in_hook in STEP_HOOKS or _compat.belongs_to_lightning(metric):
                continue
            # what never combines ranks stays as the program wants it
            combines = self._run.world_size == 1 or _compat.combines_by_states(metric)
            if combines and not _compat.is_composition(metric) and _compat.metrics_in(metric):
                yield metric, record

    def facts(self, local: Mapping[str, LocalStates]) -> dict[str, StateFacts]:
        """What this rank reports."""
        return {name: states.facts(self._run.ranks_of(states.metric)) for name, states in local.items()}

    # --- the ranks exchange states ----------------------------------------------------------------------------

    def sync(self, messages: Sequence[Mapping[str, Any]], local: Mapping[str, LocalStates]) -> list[StateView]:
        """What the ranks know of these metrics together; in correct mode states are merged where that is needed.

        Args:
            messages: Of every rank.
            local: The metrics of this rank.
        """
        views = {(view.name, view.ranks): view for view in make_state_views(messages)}
        wanted = {view_key: view for view_key, view in views.items() if view.is_wanted}
        # what was merged is no longer what such a metric holds
        for view_key in [view_key for view_key, view in views.items() if _is_fed_on(self._views.get(view_key), view)]:
            del self._views[view_key]
        # what was merged at an exchange before need not travel again
        new = {view_key: view for view_key, view in wanted.items() if not self._is_unchanged(view_key, view)}
        if new and self._run.settings.corrects:
            self._exchange({name for name, _ in new}, new, local)
        self._views.update(new)
        return list({**views, **self._views}.values())  # a program may reset a metric that was fed unequally

    def _is_unchanged(self, view_key: tuple[str, tuple[int, ...]], view: StateView) -> bool:
        earlier = self._views.get(view_key)
        return earlier is not None and earlier.facts == view.facts and earlier.absent == view.absent

    def _exchange(self, names: set[str], new: dict[Any, StateView], local: Mapping[str, LocalStates]) -> None:
        block = pack_states({name: local[name].held() for name in sorted(names) if name in local})
        blocks = self._run.exchange.gather_any(block)
        ranks = read_all(unpack_states, blocks)
        size = sum(block.numel() for block in blocks)
        too_large = size > self._run.settings.max_held_mb * MEBIBYTE
        # a rank that was fed nothing computes the metric all the same
        here = self._by_name(self._candidates())
        for view_key, view in new.items():
            if too_large:
                problem = f"those of all ranks take {size / MEBIBYTE:.0f} MiB, which is more than max_held_mb"
                new[view_key] = replace(view, problem=problem)
                continue
            states = [ranks[rank].get(view.name, {}) for rank in view.ranks]
            problem = next((sent for sent in states if isinstance(sent, str)), "")
            held = [sent for sent in states if not isinstance(sent, str)]
            if view.leaves_out and not problem:
                problem = seek_repeated(held, view.facts, view.repeated)
            if view.name in here and self._run.exchange.rank in view.ranks and not problem:
                problem = self._merge(view, *here[view.name], held)
            new[view_key] = replace(view, problem=problem)

    def _merge(self, view: StateView, metric: Metric, record: MetricRecord, ranks: Sequence[States]) -> str:
        """Merge the states of one metric, and say why they cannot be, if so; the same on every rank that has it."""
        merged: dict[str, Held] = {}
        parts = _compat.metrics_in(metric)
        for path, part in parts.items():
            held = [states[path] for states in ranks if path in states]
            # merging as torchmetrics declares it would not be what this metric does
            if _compat.overrides_combining(part):
                return f"{type(part).__name__} combines ranks in a way of its own"
            if held:
                try:
                    merged[path] = Held(sum(rank_states.updates for rank_states in held), _merge_part(part, held))
                except (TypeError, RuntimeError, ValueError) as error:
                    return f"{type(error).__name__}: {str(error).splitlines()[0]}"
        # of no epoch, as only the stamp is looked at
        local = LocalStates(metric, record.leader or record, OUTSIDE_STAGES)
        self._results[id(metric)] = MergeResult(
            view.name, local, local.stamp, _compat.WithStates(parts, merged), view.fault is not None, view.is_apart
        )
        return ""

    def end_dataloader(self) -> None:
        """The numbers of a dataloader are computed; from now on metrics show what all of them have fed.

        Those of a training are computed when its epoch ends.
        """
        if _compat.stage_name(self._run.trainer) == "train":
            return
        for result in self._results.values():
            for part in result.local.parts.values() if result.is_apart else ():
                # else compute() would return the number of this dataloader again
                _compat.forget_computed(part)
        self._results = {key: result for key, result in self._results.items() if not result.is_apart}

    def leave(self, left: Collection[str]) -> list[StateView]:
        """Leave metrics to torchmetrics where it can combine the ranks; the views as they are then.

        Args:
            left: The names of the metrics.
        """
        for view_key, view in self._views.items():
            if view.name in left and view.fault is None and not view.problem:
                self._views[view_key] = replace(view, problem="what is found there is ignored")
                self._results = {key: result for key, result in self._results.items() if result.name != view.name}
        return list(self._views.values())

    def merged(self, record: MetricRecord) -> MergeResult | None:
        """The states of all ranks, where these were merged and the metric was not fed since."""
        metric = record.metric()
        result = self._results.get(id(metric))
        if metric is None or result is None or result.local.metric is not metric or result.stamp != result.local.stamp:
            return None
        if result.is_apart and _compat.current_hook(self._run.module) is not None:
            self.end_dataloader()  # the program computes what all dataloaders have fed
            return None
        return result


def _merge_part(metric: Any, ranks: Sequence[Held]) -> dict[str, Any]:
    first, *others = ranks
    if not others or not _compat.overrides_merge(metric):
        return merge_states(ranks, _compat.state_reductions(metric))
    # merge_state() takes states into the metric itself, so it begins with those of the first rank
    with _compat.WithStates({"": metric}, {"": first}):
        for held in others:
            metric.merge_state(held.states)
        return _compat.held_states(metric)
