"""What every rule has: its code, its words and how it makes a finding."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from typing import ClassVar

from lightning_retrieval_guard.epoch.facts import SourceView, Unregistered
from lightning_retrieval_guard.epoch.views import KeyView, StageView
from lightning_retrieval_guard.findings import Effect, Finding, Severity


class Rule(ABC):
    """One way in which a logged number goes wrong.

    The docstring of the rule's module is its documentation, and the single source for its page.

    Attributes:
        code: Never reused.
        slug: The short name.
        severity: Before the effect is taken into account.
        before_reduction: Whether it must speak before Lightning combines ranks, because that could hang.
        after_others: Whether it looks, at the end of a stage, for what the other rules do not explain.
    """

    code: ClassVar[str]
    slug: ClassVar[str]
    severity: ClassVar[Severity]
    before_reduction: ClassVar[bool] = False
    after_others: ClassVar[bool] = False

    @abstractmethod
    def check(self, stage: StageView) -> Iterator[Finding]:
        """Judge the log calls and metrics of one stage."""

    def at_key(
        self,
        stage: StageView,
        key: KeyView,
        message: str,
        fix: str,
        *,
        effect: Effect | None = None,
        severity: Severity | None = None,
        ranks: Iterable[int] | None = None,
        corrected: bool = True,
    ) -> Finding:
        """A finding at a log call; ``corrected`` tells whether a replaced number is free of what the rule flags."""
        first = key.first
        seen = range(key.world_size) if ranks is None else ranks
        finding = Finding(
            code=self.code,
            rule=self.slug,
            severity=severity or self.severity,
            key=first.name,
            stage=stage.stage,
            hook=first.hook,
            path=first.path,
            line=first.line,
            message=message,
            fix=fix,
            ranks=tuple(seen),
            world_size=key.world_size,
        ).with_effect(effect)
        return replace(finding, corrected=corrected and key.corrected and finding.severity is not Severity.NOTE)

    def at_source(self, stage: StageView, source: SourceView, message: str, fix: str) -> Finding:
        """A finding at the log call that shows a metric, or at its first update where none is known yet."""
        for key in stage.keys:
            if key.source is source:
                return self.at_key(stage, key, message, fix, effect=effect_of(stage, key))
        return self.at_update(stage, source, message, fix, ranks=range(stage.world_size))

    def at_update(
        self,
        stage: StageView,
        metric: SourceView | Unregistered,
        message: str,
        fix: str,
        *,
        ranks: Iterable[int],
        severity: Severity | None = None,
    ) -> Finding:
        """A finding at the first update of a metric."""
        return Finding(
            code=self.code,
            rule=self.slug,
            severity=severity or self.severity,
            key=metric.name,
            stage=stage.stage,
            hook="update",
            path=metric.path,
            line=metric.line,
            message=message,
            fix=fix,
            ranks=tuple(ranks),
        )


def effect_of(stage: StageView, key: KeyView) -> Effect | None:
    """Logged number and reference of a key, where both are known."""
    return key.effect if stage.knows_reference(key) else None


def several(count: int, noun: str, plural: str | None = None) -> str:
    """A number with its noun, in the plural where it must be."""
    return f"{count} {noun}" if count == 1 else f"{count} {plural or noun + 's'}"


def listed(ranks: Sequence[int]) -> str:
    """Ranks in words."""
    if len(ranks) == 1:
        return f"rank {ranks[0]}"
    return f"ranks {', '.join(map(str, ranks[:-1]))} and {ranks[-1]}"


def share_of_queries(source: SourceView, count: int, queries: int) -> str:
    """A number of queries among those that were looked at, in words."""
    where = "" if source.tells_of_all else " on this rank"
    return f"{count} of {several(queries, 'query', 'queries')}{where} ({count / queries:.1%})"


def monitored_note(stage: StageView, key: KeyView) -> str:
    """Says so where a callback or scheduler decides by the key."""
    if key.first.name in stage.monitored:
        return " A checkpoint, early stopping or scheduler monitors it."
    return ""
