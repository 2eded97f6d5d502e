"""The metrics of an epoch as rules see them: their rows over all ranks, and what comes of them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from lightning_retrieval_guard.epoch.combine import LocalRows
from lightning_retrieval_guard.epoch.facts import ForeignState
from lightning_retrieval_guard.epoch.plan import Plan
from lightning_retrieval_guard.epoch.values import MetricOutcome, Tally
from lightning_retrieval_guard.ranking.measures import Measure, measure_of

_NOTHING = MetricOutcome()


@dataclass(frozen=True, slots=True)
class SourceView(ForeignState):
    """The rows of one metric over all ranks, and what comes of them; foreign rows are those of all ranks together.

    Attributes:
        name: The same on every rank.
        metric: The class of the metric.
        path: The user's file of the first update.
        line: The line in it.
        synced_in_steps: How often ``compute()`` or ``forward()`` combined ranks within steps.
        synchronises: Whether the program lets it combine ranks.
        shown_by_forward: Whether values of its ``forward()`` are logged, so that it may never combine ranks.
        syncs_itself: Whether the program gave it a ``dist_sync_fn``, which may combine ranks or not.
        mean: Whether its value is a mean over queries.
        plan: Which rows count.
        outcome: The reference value, as far as it is known.
        covers_all_ranks: Whether ``outcome`` and ``tally`` are those of all ranks.
        combined: Whether values of all ranks have travelled for it.
        as_combined: What torchmetrics makes of the rows, where this rank can tell. Rows that all ranks hold count once
            for each rank, and ids that restart merge different queries.
        tally: What decides the values of queries: of all ranks, or of this one where no values have travelled.
        measure: What the metric asks for, where this rank has it.
        dtype: Of the scores, where this rank has rows.
        suppressed: For every rank that has it the codes and prefixes of rules that are ignored at its first update.
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
    outcome: MetricOutcome = _NOTHING
    covers_all_ranks: bool = False
    combined: bool = False
    as_combined: float | None = None
    tally: Tally | None = None
    measure: Measure | None = None
    dtype: torch.dtype | None = None
    syncs_itself: bool = False
    suppressed: Sequence[Sequence[str]] = ()

    @property
    def holds_others(self) -> bool:
        """Whether the metric holds other rows than those of the epoch: more, or fewer since another stage reset it."""
        return self.shared > 0 or self.lost > 0 or (self.stale > 0 and not self.dropped)

    @property
    def hangs_on_order(self) -> bool:
        """Whether nothing is wrong with the metric's number over all ranks, which hangs on the order of rows.

        Among equal scores the order of all ranks' rows decides. Nobody knows in which order one device has them.
        """
        plan = self.plan
        is_wrong = plan.ids_restart or plan.classes or plan.left_out or plan.uneven or self.holds_others or self.dropped
        return len(plan.facts) > 1 and self.synchronises and self.outcome.tally.tied > 0 and not is_wrong

    @property
    def is_left(self) -> bool:
        """Whether torchmetrics' number stays where an object is logged, since nothing else is certain.

        Ranks with the same rows would count once, but with ids that may restart that is no reference either.
        """
        plan = self.plan
        can_combine = self.synchronises and not plan.uneven and not self.holds_others
        return self.hangs_on_order or (can_combine and plan.ids_may_restart and bool(plan.classes))

    @property
    def value(self) -> float | None:
        """The reference value where it is one number."""
        return _number(self.outcome.value)


def make_source_view(*, plan: Plan, local: LocalRows, combined: MetricOutcome | None, **words: Any) -> SourceView:
    """The view of one metric, from what this rank holds and what all ranks made of it.

    Args:
        plan: Which rows count.
        local: This rank's rows.
        combined: The value over all ranks, where rows or sums have travelled for it.
        words: The other attributes of ``SourceView``.
    """
    name, alone = words["name"], plan.replicated or len(plan.facts) == 1
    covers = combined is not None or alone
    scored = local.outcome(name) if combined is None else combined
    metric = local.metrics.get(name)
    view = SourceView(
        plan=plan,
        outcome=scored if covers else _NOTHING,
        covers_all_ranks=covers,
        combined=combined is not None,
        tally=_tally(scored, combined is not None, plan),
        measure=None if metric is None else measure_of(metric),
        dtype=None if local.table is None else local.table.preds.dtype,
        **words,
    )
    # torchmetrics' number is one of other rows, which are not here
    if view.holds_others:
        return view
    return replace(view, as_combined=_as_combined(view, local) if alone else _with_repeated(view))


def _tally(scored: MetricOutcome, combined: bool, plan: Plan) -> Tally | None:
    if not combined and (plan.is_ambiguous or plan.split):
        return None  # parts of queries tell nothing
    return scored.tally if scored.error is None and scored.tally.queries else None


def _as_combined(view: SourceView, local: LocalRows) -> float | None:
    """Equal scores are ranked by the order of all ranks' rows, which is known where it is the same on all of them."""
    if len(view.plan.facts) == 1 and not view.plan.ids_restart:
        return view.value
    outcome = local.as_combined.outcome(view.name)
    return None if view.plan.first_counts and outcome.tally.tied else _number(outcome.value)


def _with_repeated(view: SourceView) -> float | None:
    """What torchmetrics makes of all rows where the plan leaves some out, each of which it gathers from two ranks."""
    plan, tally = view.plan, view.outcome.tally
    # only of a mean is it known what a sample adds
    if not plan.padded or not view.mean or not view.synchronises or plan.ids_restart or view.value is None:
        return None
    is_known = not tally.tied and math.isfinite(tally.twice) and tally.queries
    return view.value + tally.twice / tally.queries if is_known else None


def _number(value: Any) -> float | None:
    if isinstance(value, Tensor) and value.numel() == 1:
        return float(value)
    return value if isinstance(value, float) else None
