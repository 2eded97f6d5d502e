"""Members of a compute group of a `MetricCollection` that share a state which their updates would not make alike."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import Tensor
from torchmetrics import Metric

from lightning_retrieval_guard import _compat
from lightning_retrieval_guard.epoch.facts import MergedHow

# Settings by which updates leave samples out, or decide what a score stands for.
_FILTERS = ("ignore_index", "threshold", "top_k")


@dataclass(frozen=True, slots=True)
class Merged:
    """Why a metric would hold another state than the one that it shows.

    Attributes:
        why: How the two differ, in words.
        how: ``merged_how`` of ``ForeignState``, without a look at rows.
        ignores: The relevance that one of the two leaves out, where they differ in nothing else.
        leader_ignores: Whether that is the leader.
    """

    why: str
    how: MergedHow
    ignores: int | None = None
    leader_ignores: bool = False

    def how_seen(self, left_rows_out: bool, target: Tensor | None) -> MergedHow:
        """By what it is seen, with a look at the rows that came.

        Args:
            left_rows_out: Whether an update of the metric has left rows out.
            target: The relevance of the rows that it holds, ``None`` for no rows.
        """
        if self.ignores is None or target is None:
            return self.how
        # what the leader leaves out is not among the rows that both hold
        are_there = left_rows_out if self.leader_ignores else bool((target == self.ignores).any())
        return "rows" if are_there else self.how


def merged_into(leader: Metric, member: Metric) -> Merged | None:
    """Why the updates of a member and of the leader of its compute group differ; ``None`` where nothing shows that."""
    update_of_leader, update_of_member = type(leader).update, type(member).update
    name = type(leader).__name__
    if update_of_leader is not update_of_member:
        is_custom = not (_is_torchmetrics(update_of_leader) and _is_torchmetrics(update_of_member))
        return Merged(f"{type(member).__name__} has an update() of its own", "update") if is_custom else None
    # a setting that update() does not read cannot change the state
    reads = getattr(getattr(update_of_member, "__code__", None), "co_names", ())
    for setting in _FILTERS:
        of_leader, of_member = getattr(leader, setting, None), getattr(member, setting, None)
        if setting in reads and of_leader != of_member:
            why = f"{type(member).__name__} has {setting}={of_member!r} and {name} has {of_leader!r}"
            ignores = of_member if of_leader is None else of_leader
            ignores = ignores if _compat.is_rows_metric(member) else None
            return Merged(why, "setting", ignores, of_leader is not None)
    return None


def _is_torchmetrics(function: Any) -> bool:
    return str(getattr(function, "__module__", "")).startswith("torchmetrics.")
