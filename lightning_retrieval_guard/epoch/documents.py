"""From what every rank reports to the document that rules judge."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from lightning_retrieval_guard.epoch.facts import KeyFacts
from lightning_retrieval_guard.epoch.source_view import SourceView
from lightning_retrieval_guard.epoch.views import KeyView, RepeatedBy

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
        evaluates = stage != "train"
        views.append(KeyView(facts, source, parts, replaced=replaced, evaluates=evaluates, idle=idle, batches=batches))
    return views


def _source_of(facts: Sequence[KeyFacts | None], sources: Mapping[str, SourceView]) -> SourceView | None:
    """The rows behind a key, under the name that the lowest rank has for them."""
    present = [key for key in facts if key is not None]
    # values of different kinds are no value of any one metric
    if any(key.mixed for key in present):
        return None
    names = dict.fromkeys(key.source for key in present if key.source is not None)
    views = [sources[name] for name in names if name in sources]
    # where some ranks show a part of a metric's rows and others all of them, nothing is known of them together
    return None if not views or (len(views) > 1 and any(view.shared for view in views)) else views[0]


def _parts_of(facts: Sequence[KeyFacts | None], sources: Mapping[str, SourceView]) -> tuple[SourceView, ...]:
    """The rows behind the value that a composition comes to at the end of the epoch."""
    shown = dict.fromkeys(name for key in facts if key is not None and key.shows_object for name in key.shows)
    return tuple(sources[name] for name in shown if name in sources)


def _is_replaced(facts: Sequence[KeyFacts | None], source: SourceView | None) -> bool:
    """Whether the guard computes in place of the metric behind a key."""
    present = [key for key in facts if key is not None]
    if source is None or source.syncs_itself or any(key.is_written for key in present):
        return False
    # what a program sees in a step is its own
    if any(key.kind == "forward" or (key.kind == "compute" and key.in_step) for key in present):
        return False
    return len(facts) > 1 or source.plan.ids_restart or source.holds_others


def repeated_samples(exchanges: Sequence[Sequence[Message]]) -> tuple[int, RepeatedBy]:
    """How many samples were repeated over all ranks, and by what: the sampler says so, a data set's are seen."""
    # a rank that has not seen all of its samples reports none, and then nothing is known of any
    by_sampler = max((min(message["repeated"] for message in messages) for messages in exchanges), default=0)
    if by_sampler:
        return by_sampler, "sampler"
    return max(map(_repeated_by_data_set, exchanges), default=0), "data set"


def _repeated_by_data_set(messages: Sequence[Message]) -> int:
    """How many of the last ranks end on the first samples of the first ranks, in their order."""
    edges = [message.get("edges", ()) for message in messages]
    if len(edges) < 2 or not all(edges) or len({message["samples"] for message in messages}) > 1:
        return 0
    firsts, lasts = zip(*edges, strict=True)
    if len(set(firsts)) < len(firsts):  # ranks that begin alike have more in common than one sample
        return 0
    return next((count for count in range(len(edges) - 1, 0, -1) if lasts[-count:] == firsts[:count]), 0)


def order_of_reductions(message: Message) -> tuple[str, ...]:
    """The storage keys of one rank that Lightning combines over ranks, in order of logging."""
    keys = map(KeyFacts.from_payload, message["keys"])
    return tuple(key.storage for key in keys if not key.own_group and _is_combined(key))


def _is_combined(key: KeyFacts) -> bool:
    return key.synced if key.kind == "metric" else key.sync_dist and not key.rank_zero_only
