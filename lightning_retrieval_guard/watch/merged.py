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
        how: As in ``SourceFacts``, without a look at rows.
        ignores: The relevance that one of the two leaves out, where they differ in nothing else.
        leader_ignores: Whether that is the leader.
    """

    why: str
    how: MergedHow
    ignores: int | None = None
    leader_ignores: bool = False


def merged_into(leader: Metric, member: Metric) -> Merged | None:
    """Why the updates of a member and of the leader of its compute group differ; ``None`` where nothing shows that."""
    one, other = type(leader).update, type(member).update
    name = type(leader).__name__
    if one is not other:
        own = not (_is_torchmetrics(one) and _is_torchmetrics(other))
        return Merged(f"{type(member).__name__} has an update() of its own", "update") if own else None
    reads = getattr(getattr(other, "__code__", None), "co_names", ())
    for setting in _FILTERS:
        theirs, its = getattr(leader, setting, None), getattr(member, setting, None)
        if setting in reads and theirs != its:
            why = f"{type(member).__name__} has {setting}={its!r} and {name} has {theirs!r}"
            ignores = its if theirs is None else theirs
            ignores = ignores if _compat.is_rows_metric(member) else None
            return Merged(why, "setting", ignores, theirs is not None)
    return None


def rows_given(args: Any, kwargs: dict[str, Any]) -> int | None:
    """The rows that an update of a retrieval metric was given, where its arguments are as torchmetrics names them."""
    given = kwargs["preds"] if "preds" in kwargs else next(iter(args), None)
    return given.numel() if isinstance(given, Tensor) else None


def _is_torchmetrics(function: Any) -> bool:
    return str(getattr(function, "__module__", "")).startswith("torchmetrics.")
