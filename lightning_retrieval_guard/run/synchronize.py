"""How the ranks meet.

1. Every rank tells its facts in one message (``Exchange.meet``).
2. Where ids of several ranks may be the same, their queries are compared: either a summary of every query goes to all
   ranks, or every query goes with its rows to the rank that owns its id, where most of them seem to be split.
3. Rows of queries that turned out to lie on several ranks go to their owners.
4. What each rank has scored goes to all ranks: for a mean one sum a metric, else one value a query.

Steps 2 to 4 take one collective each for all metrics together, and each happens only where the facts call for it.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

import torch
from torch import Tensor
from torchmetrics import Metric

from lightning_retrieval_guard.distributed.exchange import Exchange, RanksFailedError
from lightning_retrieval_guard.distributed.payload import ProtocolError
from lightning_retrieval_guard.epoch.documents import Message
from lightning_retrieval_guard.epoch.facts import KeyFacts, SourceFacts
from lightning_retrieval_guard.epoch.plan import Plan, Scope, make_plan
from lightning_retrieval_guard.epoch.row_facts import RowFacts
from lightning_retrieval_guard.epoch.source_view import SourceView
from lightning_retrieval_guard.run.checking import check_messages
from lightning_retrieval_guard.run.metric_group import Member, MetricGroup
from lightning_retrieval_guard.run.sources import LocalSource

Wants = Callable[[str, Plan, Sequence[Message]], bool]


@dataclass
class Meeting:
    """What came of a meeting.

    Attributes:
        messages: What every rank told, in order of rank.
        sources: The metrics that any rank told of, by name.
    """

    messages: list[Message]
    sources: dict[str, SourceView]


class Table:
    """Where the ranks meet."""

    def __init__(
        self, exchange: Exchange, scope: Scope, corrects: bool, metric_named: Callable[[str], Metric | None]
    ) -> None:
        self._exchange = exchange
        self._scope = scope
        self._corrects = corrects
        self._metric_named = metric_named
        exchange.vocabulary = VOCABULARY

    def meet(self, label: str, message: Message, sources: Mapping[str, LocalSource], wants: Wants) -> Meeting:
        """Compare notes with all ranks.

        Args:
            label: The point of the program; the same on all ranks.
            message: What this rank tells besides its sources; ``"repeated"`` is the number of padded samples.
            sources: The metrics of this rank that hold rows, by name.
            wants: Whether the value of a source is wanted, decided from what all ranks told.

        Raises:
            RanksFailedError: On all ranks, where one has failed or sent what cannot be read.
        """
        try:
            return self._meet(label, message, sources, wants)
        except ProtocolError as error:
            raise RanksFailedError(dict.fromkeys(error.reasons, f"{type(error).__name__}: {error}")) from error

    def _meet(self, label: str, message: Message, sources: Mapping[str, LocalSource], wants: Wants) -> Meeting:
        messages = self._exchange.meet(label, {**message, **_tell(sources)})
        if self._exchange.world_size > 1:
            check_messages(messages)
        bundles = self._bundles(messages, sources)
        self._compare([bundle for bundle in bundles if bundle.plan.compare == "queries"])
        wanted = [bundle for bundle in bundles if bundle.choose(lambda name, plan: wants(name, plan, messages))]
        self._send([bundle for bundle in wanted if bundle.sends_rows])
        self._combine(wanted)
        views = [view for bundle in bundles for view in bundle.views()]
        return Meeting(messages, {view.name: view for view in sorted(views, key=lambda view: view.name)})

    def _bundles(self, messages: Sequence[Message], sources: Mapping[str, LocalSource]) -> list[MetricGroup]:
        """The metrics of all ranks, those together that saw the same rows on every rank."""
        repeated = min(message["repeated"] for message in messages)
        found: dict[tuple[Any, ...], MetricGroup] = {}
        for name, told in _by_name(messages).items():
            for ranks in sorted({own.group or tuple(range(len(messages))) for own in told.values()}):
                members = {rank: told[rank] for rank in ranks if rank in told}
                rows = tuple(members[rank].rows if rank in members else None for rank in ranks)
                synchronises = any(own.synchronises for own in members.values())
                key = (ranks, rows, synchronises)
                if key not in found:
                    facts = [_facts(messages[rank], index) for rank, index in zip(ranks, rows, strict=True)]
                    plan = make_plan(facts, self._scope, repeated, synchronises, self._corrects)
                    found[key] = MetricGroup(ranks, plan, self._exchange.rank)
                own = sources.get(name)
                metric = own.metric if own is not None else self._metric_named(name)
                found[key].add(name, Member(members, metric, own.rows if own is not None else None))
        return list(found.values())

    def _compare(self, bundles: Sequence[MetricGroup]) -> None:
        if bundles:
            parts = self._gather([(bundle.summary(), bundle.summary_bytes) for bundle in bundles])
            for bundle, blocks in zip(bundles, parts, strict=True):
                bundle.compare([blocks[rank] for rank in bundle.ranks], self._scope)

    def _send(self, bundles: Sequence[MetricGroup]) -> None:
        """Send rows to the ranks that own their queries."""
        if not bundles:
            return
        ranks = range(self._exchange.world_size)
        sizes = [[[bundle.packed_bytes(one, other) for bundle in bundles] for other in ranks] for one in ranks]
        own = [torch.cat([bundle.parcel(other) for bundle in bundles]) for other in ranks]
        received = self._exchange.send_blocks(own, [[sum(part) for part in row] for row in sizes])
        parts = [whole.split(sizes[one][self._exchange.rank]) for one, whole in enumerate(received)]
        for place, bundle in enumerate(bundles):
            bundle.receive([parts[one][place] for one in ranks])

    def _combine(self, bundles: Sequence[MetricGroup]) -> None:
        """Tell all ranks what each has scored."""
        if bundles:
            parts = self._gather([(bundle.block(), bundle.block_bytes) for bundle in bundles])
            for bundle, blocks in zip(bundles, parts, strict=True):
                bundle.combine([blocks[rank] for rank in bundle.ranks])

    def _gather(self, blocks: Sequence[tuple[Tensor, Callable[[int], int]]]) -> list[list[Tensor]]:
        """Blocks of all ranks.

        Args:
            blocks: For each bundle this rank's block, and what tells the size of any rank's.
        """
        sizes = [[size(rank) for _, size in blocks] for rank in range(self._exchange.world_size)]
        gathered = self._exchange.gather_blocks(torch.cat([own for own, _ in blocks]), [sum(size) for size in sizes])
        parts = [whole.split(size) for whole, size in zip(gathered, sizes, strict=True)]
        return [[part[place] for part in parts] for place in range(len(blocks))]


def _vocabulary() -> bytes:
    """A message like many others, with everything that any may hold."""
    keys = [dict.fromkeys(field.name for field in fields(KeyFacts)), *(key.to_payload() for key in _SOME_KEYS)]
    rows = {field.name: False if "bool" in str(field.type) else 1 for field in fields(RowFacts)}
    sources = {f"metrics.{name}": SourceFacts(0, metric, "", 0).to_payload() for name, metric in _SOME_METRICS.items()}
    others = dict.fromkeys(field.name for field in fields(SourceFacts))
    message: Message = {
        "batches": 1,
        "samples": 1,
        "repeated": 0,
        "monitored": [],
        "more": False,
        "ignores": False,
        "keys": keys,
    }
    text = ["validate/0/epoch", "test/0/batches", {**message, "rows": [rows], "sources": {"": others, **sources}}]
    return json.dumps(text, separators=(",", ":")).encode()


_STEP, _END = "validation_step", "on_validation_epoch_end"
_SOME_KEYS = [
    KeyFacts(
        f"{_END}.", "val_", _END, "", 0, "compute", in_step=False, calls=1, synced=True, source="metrics.", value=1.0
    ),
    KeyFacts(f"{_STEP}.", "val_", _STEP, "", 0, "plain", calls=1, value=0.5, weight=2.0),
    KeyFacts(f"{_STEP}.", "val_", _STEP, "", 0, "metric", calls=1, synced=True, source="metrics."),
]
_SOME_METRICS = {
    "ndcg": "RetrievalNormalizedDCG",
    "map": "RetrievalMAP",
    "recall": "RetrievalRecall",
    "mrr": "RetrievalMRR",
}
VOCABULARY = _vocabulary()
"""What messages are likely to contain; made before any run, so that no part of a run can spoil it."""


def _tell(sources: Mapping[str, LocalSource]) -> Message:
    """The facts of rows once for all metrics that share them."""
    rows = list({id(source.rows): source.rows for source in sources.values()}.values())
    place = {id(own): number for number, own in enumerate(rows)}
    return {
        "rows": [own.facts.to_payload() for own in rows],
        "sources": {name: source.facts(place[id(source.rows)]).to_payload() for name, source in sources.items()},
    }


def _by_name(messages: Sequence[Message]) -> dict[str, dict[int, SourceFacts]]:
    """For every name what each rank told that has it."""
    names = sorted({name for message in messages for name in message["sources"]})
    return {
        name: {
            rank: SourceFacts.from_payload(message["sources"][name])
            for rank, message in enumerate(messages)
            if name in message["sources"]
        }
        for name in names
    }


def _facts(message: Message, index: int | None) -> RowFacts:
    return RowFacts() if index is None else RowFacts.from_payload(message["rows"][index])
