"""What the report needs of an epoch: the numbers of its keys, and what each rank saw."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from lightning_retrieval_guard.epoch.documents import Message
from lightning_retrieval_guard.epoch.row_facts import RowFacts
from lightning_retrieval_guard.epoch.views import EpochView, KeyView
from lightning_retrieval_guard.findings import Numbers
from lightning_retrieval_guard.report.contents import RowCounts, StageCounts
from lightning_retrieval_guard.run.correct import is_left


def numbers_of(epoch: EpochView, left: Collection[str]) -> dict[str, Numbers]:
    """Logged number and reference of every key, each where it is known; no reference where a fault is ignored."""
    return {
        key.first.name: Numbers(
            key.logged,
            key.reference if epoch.knows_reference(key) and _is_result(key) and not is_left(key, left) else None,
            key.first.storage in epoch.corrected,
        )
        for key in epoch.keys
    }


def _is_result(key: KeyView) -> bool:
    """Whether a value is meant for all ranks. A plain one of the training that a rank has for itself is not."""
    return key.evaluates or key.source is not None or key.first.sync_dist or key.first.synced


def counts_of(exchanges: Sequence[Sequence[Message]]) -> StageCounts:
    """What each rank saw of a stage up to the last exchange."""
    metrics: dict[str, tuple[RowCounts, ...]] = {}
    for messages in exchanges:
        for name in sorted({name for message in messages for name in message["sources"]}):
            # metrics of steps go by the key that shows them
            metrics[name.removeprefix("key:")] = tuple(_row_counts(message, name) for message in messages)
    return StageCounts(tuple(message["samples"] for message in exchanges[-1]), metrics)


def _row_counts(message: Message, name: str) -> RowCounts:
    source = message["sources"].get(name)
    if source is None:
        return RowCounts()
    facts = RowFacts.from_payload(message["rows"][source["rows"]])
    return RowCounts(facts.updates, facts.queries)
