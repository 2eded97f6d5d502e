"""What every part of one run needs, and which findings the user ignores in it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

from torchmetrics import Metric

from lightning_retrieval_guard import _compat
from lightning_retrieval_guard.distributed.exchange import Exchange
from lightning_retrieval_guard.epoch.facts import ComputeCall, FlattenedCall
from lightning_retrieval_guard.epoch.source_view import SourceView
from lightning_retrieval_guard.epoch.states import StateView
from lightning_retrieval_guard.epoch.views import EpochView
from lightning_retrieval_guard.findings import Finding
from lightning_retrieval_guard.rules import REGISTRY, codes_of
from lightning_retrieval_guard.rules.base import Correction
from lightning_retrieval_guard.rules.lrg902_unused_suppression import UnusedSuppression
from lightning_retrieval_guard.run.reporter import Reporter
from lightning_retrieval_guard.settings import Settings
from lightning_retrieval_guard.watch.keys import KeyRecord
from lightning_retrieval_guard.watch.suppressions import Suppressed, Suppressions, all_silence, patterns_of

if TYPE_CHECKING:
    from lightning_retrieval_guard.run.sources import LocalSource
    from lightning_retrieval_guard.run.states import LocalStates


class Verdict(NamedTuple):
    """The findings of a document.

    Attributes:
        reported: Those that the user hears of.
        ignored: The others.
    """

    reported: list[Finding]
    ignored: list[Finding]

    @property
    def left_to_program(self) -> frozenset[str]:
        """The log calls and metrics whose numbers stay with the program, as a rule that corrects is ignored there."""
        return frozenset(finding.target for finding in self.ignored if _leaves_number(finding))


def may_correct(correction: Correction, suppressed: Suppressed, settings: Settings) -> bool:
    """Whether the rules that declare a correction are enabled where some suppressions hold."""
    patterns = [patterns_of(suppressed)]
    return all(settings.allows(code) and not all_silence(patterns, code) for code in codes_of(correction))


def _leaves_number(finding: Finding) -> bool:
    """Whether the program has a number that can stay: not where Lightning or torchmetrics would hang for it."""
    return bool(finding.corrects) and finding.is_serious and not REGISTRY[finding.code].spec.precedes_reduction


class SuppressionFilter:
    """Tells findings that are reported from those that are ignored."""

    def __init__(self, suppressions: Suppressions, settings: Settings) -> None:
        self._suppressions = suppressions
        self._settings = settings

    def split(
        self,
        findings: Iterable[Finding],
        epoch: EpochView,
        keys: Mapping[str, KeyRecord],
        sources: Mapping[str, LocalSource | LocalStates],
    ) -> Verdict:
        """Sort findings, and note which suppressions were of use.

        Args:
            findings: Of the document.
            epoch: The document.
            keys: The log calls of this rank, by Lightning's storage key.
            sources: The metrics of this rank, by name.
        """
        reported, ignored = [], []
        for finding in findings:
            # a rule that is off altogether makes no use of a suppression
            if not self._settings.allows(finding.code):
                ignored.append(finding)
            elif all_silence(_patterns_at(finding, epoch), finding.code):
                self._suppressions.use(_suppressed_at(finding, keys, sources), finding.code)
                ignored.append(finding)
            else:
                reported.append(finding)
        return Verdict(reported, ignored)

    def may_ignore(self, owners: Iterable[object]) -> bool:
        """Whether a rule may be ignored at any log call of some objects, as far as source and settings show."""
        # a rule that settings turn off is ignored everywhere
        chosen = self._settings.select is not None or bool(self._settings.ignore)
        return chosen or self._suppressions.may_apply(map(type, owners))

    def unused(self, rank: int, world_size: int) -> Iterator[Finding]:
        """Findings about the suppressions of a run that is over."""
        rule = UnusedSuppression()
        for suppression, patterns in self._suppressions.unused() if self._settings.allows(rule.code) else ():
            idle = [pattern for pattern in patterns if self._could_match(pattern)]
            if idle:
                yield rule.at_suppression(suppression.path, suppression.line, suppression.text, idle, rank, world_size)

    def _could_match(self, pattern: str) -> bool:
        """Whether a rule could have been ignored, or none begins with the pattern."""
        codes = [code for code in REGISTRY if code.startswith(pattern)]
        return not codes or any(map(self._settings.allows, codes))


def _patterns_at(finding: Finding, epoch: EpochView) -> Sequence[Sequence[str]]:
    """What is ignored where a finding stands, as every rank reports it."""
    # a rule is off at a log call only where all ranks ignore it, so that all do the same
    for key in epoch.keys:
        if key.first.storage == finding.target:
            return [facts.suppressed for facts in key.present]
    calls: tuple[FlattenedCall | ComputeCall, ...] = (*epoch.flattened, *epoch.computed_alone)
    for call in calls:
        if call.target == finding.target:
            return [call.suppressed]
    metrics: tuple[SourceView | StateView, ...] = (*epoch.sources, *epoch.states)
    return next((metric.suppressed for metric in metrics if metric.name == finding.target), ())


def _suppressed_at(
    finding: Finding, keys: Mapping[str, KeyRecord], sources: Mapping[str, LocalSource | LocalStates]
) -> Suppressed:
    """What makes it so on this rank."""
    if finding.target in keys:
        return keys[finding.target].suppressed
    return sources[finding.target].suppressed if finding.target in sources else ()


@dataclass
class RunContext:
    """One run of one trainer on this process.

    Attributes:
        trainer: Lightning's trainer.
        module: Lightning's module.
        settings: Of the guard.
        reporter: Keeps and reports what is found.
        suppressions: What the user ignores at single places.
        exchange: Connects the ranks; with one process until they are connected.
    """

    trainer: Any
    module: Any
    settings: Settings
    reporter: Reporter
    suppressions: Suppressions
    exchange: Exchange = field(default_factory=Exchange)

    def __post_init__(self) -> None:
        self.filter = SuppressionFilter(self.suppressions, self.settings)

    def save(self, is_last: bool = False) -> None:
        """Write the report as of now, on the process that writes."""
        if self.is_rank_zero:
            self.reporter.write(self.trainer, is_last)

    @property
    def world_size(self) -> int:
        """The number of ranks."""
        return self.exchange.world_size

    def ranks_of(self, metric: Metric) -> tuple[int, ...] | None:
        """The ranks that a metric combines, where these are not all."""
        group = _compat.group_of(metric)
        return None if group is None else tuple(self.exchange.ranks_of(group))

    @property
    def is_rank_zero(self) -> bool:
        """Whether this process is the one that warns, prints and writes."""
        return self.exchange.rank == 0
