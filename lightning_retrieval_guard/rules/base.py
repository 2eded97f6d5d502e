"""What every rule has: its specification, its check, and how it makes a finding.

Needs neither torch nor Lightning when it is imported, so that lint and ``explain`` start at once.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from lightning_retrieval_guard.findings import Effect, Finding, Severity
from lightning_retrieval_guard.report.text import several

if TYPE_CHECKING:
    from lightning_retrieval_guard.epoch.facts import ComputeCall, FlattenedCall, Unregistered
    from lightning_retrieval_guard.epoch.source_view import SourceView
    from lightning_retrieval_guard.epoch.states import StateView
    from lightning_retrieval_guard.epoch.views import EpochView, KeyView

Correction = Literal["value", "order", "stale_state", "foreign_state", "device"]
"""What correct mode puts right: the number of a key, the order in which keys are reduced, rows of earlier epochs, rows
of another dataloader or stage, the device of a metric."""


@dataclass(frozen=True, slots=True)
class RuleSpec:
    """Code, words and consequences of a rule.

    Attributes:
        code: Never reused.
        slug: The short name.
        severity: Before the effect is taken into account.
        fix: What to type instead.
        corrects: What correct mode puts right where the rule reports something, or ``None``. Where such a rule is
            ignored, the key's number is left to the program.
        scales_by_ranks: Whether it multiplies or divides a number by the number of ranks.
        precedes_reduction: Whether it must report before Lightning combines ranks, because that could hang.
        follows_others: Whether it looks for what the other rules do not explain.
        judges_weights: Whether the batch sizes alone are enough to judge, so that strict mode raises in the step.
        static: Whether the lint finds it in source too.
    """

    code: str
    slug: str
    severity: Severity
    fix: str
    corrects: Correction | None = None
    scales_by_ranks: bool = False
    precedes_reduction: bool = False
    follows_others: bool = False
    judges_weights: bool = False
    static: bool = False


class Rule(ABC):
    """One way in which a logged number goes wrong: a pure function of the epoch's document.

    The docstring of the rule's module is its documentation, and the single source for its page.

    Attributes:
        spec: Code, words and consequences.
    """

    spec: ClassVar[RuleSpec]

    @property
    def code(self) -> str:
        """Never reused."""
        return self.spec.code

    @property
    def slug(self) -> str:
        """The short name."""
        return self.spec.slug

    @property
    def severity(self) -> Severity:
        """Before the effect is taken into account."""
        return self.spec.severity

    @abstractmethod
    def check(self, epoch: EpochView) -> Iterator[Finding]:
        """Judge the log calls and metrics of one epoch."""

    def finding(
        self,
        message: str,
        *,
        ranks: Iterable[int],
        fix: str | None = None,
        severity: Severity | None = None,
        **attributes: Any,
    ) -> Finding:
        """A finding of this rule.

        Args:
            message: The verdict with the measured values.
            ranks: Where it was seen.
            fix: What to type instead; the rule's own by default.
            severity: The rule's own by default.
            attributes: The others of ``Finding``.
        """
        return Finding(
            code=self.code,
            rule=self.slug,
            severity=severity or self.severity,
            message=message,
            fix=fix or self.spec.fix,
            ranks=tuple(ranks),
            **attributes,
        )

    def at_key(
        self,
        epoch: EpochView,
        key: KeyView,
        message: str,
        *,
        fix: str | None = None,
        effect: Effect | None = None,
        severity: Severity | None = None,
        ranks: Iterable[int] | None = None,
        is_mended: bool = True,
    ) -> Finding:
        """A finding at a log call.

        Args:
            epoch: The document.
            key: The logged key.
            message: The verdict with the measured values.
            fix: What to type instead; the rule's own by default.
            effect: Logged and reference number, where both are known.
            severity: The rule's own by default.
            ranks: Where it was seen; on all ranks by default.
            is_mended: Whether the reference is free of what the rule reports.
        """
        first = key.first
        return self.finding(
            message,
            severity=severity,
            key=first.name,
            stage=epoch.stage,
            hook=first.hook,
            path=first.path,
            line=first.line,
            fix=fix,
            ranks=range(key.world_size) if ranks is None else ranks,
            world_size=key.world_size,
            target=first.storage,
            corrects=self.spec.corrects if is_mended else None,
            scales_by_ranks=self.spec.scales_by_ranks,
            updates=() if key.source is None else ((key.source.path, key.source.line),),
        ).with_effect(effect)

    def at_weights(self, epoch: EpochView, key: KeyView, message: str, **words: Any) -> Finding:
        """A finding at a log call with wrong batch sizes: a note where these alone change nothing."""
        alone = key.weight_effect
        if alone is not None and alone.is_nil:
            return self.at_key(epoch, key, message, **{**words, "severity": Severity.NOTE})
        return self.at_key(epoch, key, message, effect=effect_of(epoch, key), **words)

    def at_source(self, epoch: EpochView, source: SourceView, message: str, **words: Any) -> Iterator[Finding]:
        """Findings at the log calls that show a metric, or one at its first update where none is known yet."""
        keys = [key for key in epoch.keys_of(source) if key.first.kind != "forward"]
        for key in keys:
            yield self.at_key(epoch, key, message, effect=effect_of(epoch, key), **words)
        if not keys:
            yield self.at_update(epoch, source, message, ranks=range(epoch.world_size), **words)

    def at_call(
        self, epoch: EpochView, call: FlattenedCall | ComputeCall, name: str, message: str, *, fix: str | None = None
    ) -> Finding:
        """A finding at a call that is no log call, of a functional or of ``compute()``."""
        return self.finding(
            message,
            key=name,
            stage=epoch.stage,
            hook=call.hook,
            path=call.path,
            line=call.line,
            fix=fix,
            ranks=call.ranks,
            target=call.target,
            corrects=self.spec.corrects,
        )

    def at_update(
        self,
        epoch: EpochView,
        metric: SourceView | StateView | Unregistered,
        message: str,
        *,
        ranks: Iterable[int],
        fix: str | None = None,
        severity: Severity | None = None,
    ) -> Finding:
        """A finding at the first update of a metric."""
        return self.finding(
            message,
            severity=severity,
            key=metric.name,
            stage=epoch.stage,
            hook="update",
            path=metric.path,
            line=metric.line,
            fix=fix,
            ranks=ranks,
            target=metric.name,
            corrects=self.spec.corrects,
        )


def effect_of(epoch: EpochView, key: KeyView) -> Effect | None:
    """Logged number and reference of a key, where both are known."""
    return key.effect if epoch.knows_reference(key) else None


def listed(ranks: Sequence[int]) -> str:
    """Ranks in words."""
    if len(ranks) == 1:
        return f"rank {ranks[0]}"
    return f"ranks {', '.join(map(str, ranks[:-1]))} and {ranks[-1]}"


def share_of_queries(source: SourceView, count: int, queries: int) -> str:
    """A number of queries among those that were looked at, in words."""
    where = "" if source.covers_all_ranks else " on this rank"
    return f"{count} of {several(queries, 'query', 'queries')}{where} ({count / queries:.1%})"


def monitored_note(epoch: EpochView, key: KeyView) -> str:
    """Says so where a callback or scheduler decides by the key."""
    if key.first.name in epoch.monitored:
        return " A checkpoint, early stopping or scheduler monitors it."
    return ""
