"""How the ranks meet: facts first, then queries where ids overlap, then sums and rows where a value is wanted."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torchmetrics import Metric

from lightning_retrieval_guard.exchange import Exchange
from lightning_retrieval_guard.retrieval.combine import LocalRows, block_sizes
from lightning_retrieval_guard.retrieval.facts import RowFacts
from lightning_retrieval_guard.retrieval.plan import Plan, compare_queries, make_plan
from lightning_retrieval_guard.route.sources import LocalSource
from lightning_retrieval_guard.rules.view import SourceView
from lightning_retrieval_guard.settings import QueryScope

_BYTES = 8
_QUERY_FIELDS = 4

Message = dict[str, Any]
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

    def __init__(self, exchange: Exchange, scope: QueryScope, metric_named: Callable[[str], Metric | None]) -> None:
        self._exchange = exchange
        self._scope = scope
        self._metric_named = metric_named

    def meet(self, label: str, message: Message, sources: Mapping[str, LocalSource], wants: Wants) -> Meeting:
        """Compare notes with all ranks.

        Args:
            label: The point of the program; the same on all ranks.
            message: What this rank tells besides its sources; ``"repeated"`` is the number of padded samples.
            sources: The metrics of this rank that hold rows, by name.
            wants: Whether the value of a source is wanted, decided from what all ranks told.
        """
        told = {name: _tell(source) for name, source in sources.items()}
        messages = self._exchange.meet(label, {**message, "sources": told})
        repeated = min(other["repeated"] for other in messages)
        views = {name: self._view(name, messages, sources.get(name), repeated) for name in _names(messages)}
        summaries = self._compare(views)
        wanted = {name: view for name, view in views.items() if _must_travel(view) and wants(name, view.plan, messages)}
        self._combine(wanted, summaries)
        return Meeting(messages, views)

    def _view(self, name: str, messages: Sequence[Message], own: LocalSource | None, repeated: int) -> SourceView:
        entries = [message["sources"].get(name) for message in messages]
        facts = [RowFacts.from_message(entry["facts"]) if entry else RowFacts() for entry in entries]
        plan = make_plan(facts, self._scope, repeated)
        first = next(entry for entry in entries if entry)
        rank = self._exchange.rank
        # a rank without rows needs the metric all the same, to score what the others send
        metric, table, pieces = (own.metric, own.table, own.pieces) if own else (self._metric_named(name), None, None)
        local = LocalRows(metric, table, pieces, plan, rank)
        return SourceView(
            name=name,
            metric=first["metric"],
            path=first["path"],
            line=first["line"],
            synced_in_steps=max(entry["synced_in_steps"] for entry in entries if entry),
            synchronises=any(own.synchronises for own in facts if own.rows),
            shown_by_forward=any(entry["shown_by_forward"] for entry in entries if entry),
            plan=plan,
            local=local,
        )

    def _compare(self, views: Mapping[str, SourceView]) -> dict[str, list[Tensor]]:
        """Compare queries where ids overlap, for all sources in one collective."""
        asked = [view for view in views.values() if view.plan.ask_queries]
        if not asked:
            return {}
        sizes = [sum(_summary_words(facts) for facts in column) for column in _by_rank(asked)]
        words = torch.cat([_pack_summary(view, self._exchange.rank) for view in asked])
        blocks = self._exchange.gather_blocks(words.view(torch.uint8), [_BYTES * size for size in sizes])
        numbers = [block.contiguous().clone().view(torch.int64) for block in blocks]
        summaries: dict[str, list[Tensor]] = {}
        starts = [0] * len(numbers)
        for view in asked:
            ranks = []
            for rank, facts in enumerate(view.plan.facts):
                ranks.append(_unpack_summary(numbers[rank][starts[rank] :]))
                starts[rank] += _summary_words(facts)
            view.plan = compare_queries(view.plan, ranks, self._scope)
            view.local = view.local.with_plan(view.plan)
            summaries[view.name] = ranks
        return summaries

    def _combine(self, wanted: Mapping[str, SourceView], summaries: Mapping[str, list[Tensor]]) -> None:
        """Send what the wanted values need, for all sources in one collective."""
        if not wanted:
            return
        sizes = {name: block_sizes(view.plan, summaries.get(name, [])) for name, view in wanted.items()}
        rank = self._exchange.rank
        block = torch.cat([view.local.block(sizes[name][rank]) for name, view in wanted.items()])
        totals = [sum(own[other] for own in sizes.values()) for other in range(self._exchange.world_size)]
        blocks = self._exchange.gather_blocks(block, totals)
        starts = [0] * len(blocks)
        for name, view in wanted.items():
            parts = []
            for other, whole in enumerate(blocks):
                parts.append(whole[starts[other] : starts[other] + sizes[name][other]])
                starts[other] += sizes[name][other]
            view.combined = view.local.combine(parts)


def _must_travel(view: SourceView) -> bool:
    return not view.plan.gathered and len(view.plan.facts) > 1 and view.plan.has_rows


def _tell(source: LocalSource) -> Message:
    return {
        "facts": source.facts.to_message(),
        "metric": type(source.metric).__name__,
        "path": source.site.path,
        "line": source.site.line,
        "synced_in_steps": source.synced_in_steps,
        "shown_by_forward": source.shown_by_forward,
    }


def _names(messages: Sequence[Message]) -> list[str]:
    return sorted({name for message in messages for name in message["sources"]})


def _by_rank(views: Sequence[SourceView]) -> list[list[RowFacts]]:
    return [list(column) for column in zip(*(view.plan.facts for view in views), strict=True)]


def _summary_words(facts: RowFacts) -> int:
    return 1 + _QUERY_FIELDS * facts.queries


def _pack_summary(view: SourceView, rank: int) -> Tensor:
    summary = view.local.summary()
    words = torch.zeros(_summary_words(view.plan.facts[rank]), dtype=torch.int64)
    words[0] = summary.shape[1]
    words[1 : 1 + summary.numel()] = summary.reshape(-1)
    return words


def _unpack_summary(words: Tensor) -> Tensor:
    queries = int(words[0])
    return words[1 : 1 + _QUERY_FIELDS * queries].reshape(_QUERY_FIELDS, queries)
