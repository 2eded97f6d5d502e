"""What the user keeps quiet: which findings it silences, and how numbers count that nobody may correct."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from lightning_retrieval_guard.epoch.facts import SourceView
from lightning_retrieval_guard.epoch.values import Outcome
from lightning_retrieval_guard.epoch.views import KeyView, StageView
from lightning_retrieval_guard.findings import Finding
from lightning_retrieval_guard.rules import REGISTRY
from lightning_retrieval_guard.rules.base import several
from lightning_retrieval_guard.run.sources import LocalSource
from lightning_retrieval_guard.settings import Settings
from lightning_retrieval_guard.watch.keys import KeyRecord
from lightning_retrieval_guard.watch.suppressions import Suppressed, Suppressions, all_silence


def is_enabled(code: str, key: KeyView, settings: Settings) -> bool:
    """Whether a rule may speak of a key, and correct it: every rank has to know that it may not."""
    return settings.allows(code) and not all_silence([own.suppressed for own in key.present], code)


@dataclass(frozen=True, order=True)
class Terms:
    """How rows count where the rules against it may not speak.

    Attributes:
        merged: Ids that restart name the same query.
        repeated: Samples that the sampler repeated count as often as they came.
    """

    merged: bool = False
    repeated: bool = False


def terms_of(key: KeyView, settings: Settings) -> Terms:
    """The terms of the rows behind a key, the same on all ranks."""
    if key.source is None:
        return Terms()
    plan = key.source.plan
    restarting = plan.restarting and settings.query_scope == "auto"
    return Terms(
        merged=restarting and not is_enabled("LRG301", key, settings),
        repeated=plan.left_out > 0 and not is_enabled("LRG403", key, settings),
    )


def declared_source(key: KeyView, settings: Settings) -> SourceView | None:
    """The rows behind a key with the value that the program gives them, where no rule may object; else ``None``."""
    source, first = key.source, key.first
    if source is None or first.kind == "forward" or not key.shows_source:
        return None
    if source.plan.gathered:
        as_combined = source.synchronises and not is_enabled("LRG201", key, settings)
        return replace(source, combined=Outcome(source.value_as_combined)) if as_combined else None
    once = first.kind == "metric" or not first.in_step
    lone = once and key.world_size > 1 and not source.synchronises and not first.sync_dist
    if lone and not is_enabled("LRG203", key, settings):
        return replace(source, combined=source.local.outcome(source.name))
    return None


def sources_behind(keys: Sequence[KeyView], known: Iterable[SourceView]) -> list[SourceView]:
    """The known sources, with those in the place of others that count as the program has it."""
    declared = {id(key.source): key.source for key in keys if key.as_declared and key.source is not None}
    replaced = {source.name for source in declared.values()}
    shown = {id(key.source) for key in keys}
    return [*(own for own in known if own.name not in replaced or id(own) in shown), *declared.values()]


Meet = Callable[[Terms, Collection[str]], Mapping[str, SourceView]]


class SuppressionFilter:
    """Silences findings, and knows what was of use for that."""

    def __init__(self, suppressions: Suppressions, settings: Settings) -> None:
        self._suppressions = suppressions
        self._settings = settings

    def concerns(self, keys: Iterable[KeyView]) -> bool:
        """Whether any rule may not speak of any of the keys."""
        chosen = self._settings.select is not None or bool(self._settings.ignore)
        return chosen or any(own.suppressed for key in keys for own in key.present)

    def speaking(
        self,
        findings: Iterable[Finding],
        stage: StageView,
        keys: Mapping[str, KeyRecord],
        sources: Mapping[str, LocalSource],
    ) -> list[Finding]:
        """The findings that no suppression silences.

        Args:
            findings: Of a stage.
            stage: What all ranks told of it.
            keys: The log calls of this rank.
            sources: The metrics of this rank.
        """
        spoken = []
        for finding in findings:
            told, own = _suppressed_at(finding, stage, keys, sources)
            if all_silence(told, finding.code):
                self._suppressions.use(own, finding.code)
            else:
                spoken.append(finding)
        return spoken

    def settle(self, keys: Sequence[KeyView], stage: StageView, meet: Meet) -> list[KeyView]:
        """The keys with what counts behind them where rules may not speak of them.

        Args:
            keys: Logged since the ranks met before.
            stage: The same keys, taken for corrected.
            meet: Combines rows once more.
        """
        terms = [terms_of(key, self._settings) for key in keys]
        met: dict[Terms, Mapping[str, SourceView]] = {Terms(): {}}
        for wanted in sorted(set(terms) - set(met)):
            pairs = zip(keys, terms, strict=True)
            met[wanted] = meet(wanted, {key.source.name for key, own in pairs if own == wanted and key.source})
        # only now, because a rule that fails on one rank must not keep the others waiting
        findings = [finding for rule in REGISTRY.values() for finding in rule.check(stage)]
        return [self._settled(key, met[own], findings) for key, own in zip(keys, terms, strict=True)]

    def _settled(self, key: KeyView, met: Mapping[str, SourceView], findings: Sequence[Finding]) -> KeyView:
        again = None if key.source is None else met.get(key.source.name)
        source = declared_source(replace(key, source=again or key.source), self._settings) or again
        if source is None:
            return replace(key, left_alone=self._leaves_alone(key, findings))
        return replace(key, source=source, as_declared=True)

    def _leaves_alone(self, key: KeyView, findings: Iterable[Finding]) -> bool:
        """Whether a number stays as it is, because no rule that would correct it may speak."""
        codes = {finding.code for finding in findings if finding.corrected and _is_at(finding, key)}
        # torchmetrics has no number for uneven updates that could stay
        stays = bool(codes) and "LRG205" not in codes
        return stays and not any(is_enabled(code, key, self._settings) for code in codes)

    def unused(self, rank: int, world_size: int) -> Iterator[Finding]:
        """Findings about the suppressions of a run that is over."""
        rule = REGISTRY["LRG902"]
        for own, patterns in self._suppressions.unused() if self._settings.allows(rule.code) else ():
            idle = [pattern for pattern in patterns if self._could_speak(pattern)]
            if idle:
                yield Finding(
                    code=rule.code,
                    rule=rule.slug,
                    severity=rule.severity,
                    key="",
                    stage="",
                    hook="",
                    path=own.path,
                    line=own.line,
                    message=f"{', '.join(idle)} in {own.text!r} silenced nothing in this run on"
                    f" {several(world_size, 'rank')}.",
                    fix="Take it away, or name the rule that it is meant for.",
                    ranks=(rank,),
                )

    def _could_speak(self, pattern: str) -> bool:
        """Whether a rule could have been silenced, or none begins with the pattern."""
        codes = [code for code in REGISTRY if code.startswith(pattern)]
        return not codes or any(map(self._settings.allows, codes))


def _is_at(finding: Finding, key: KeyView) -> bool:
    first = key.first
    place = (first.name, first.hook, first.path, first.line)
    return (finding.key, finding.hook, finding.path, finding.line) == place


def _suppressed_at(
    finding: Finding, stage: StageView, keys: Mapping[str, KeyRecord], sources: Mapping[str, LocalSource]
) -> tuple[Sequence[Sequence[str]], Suppressed]:
    """What is silent where a finding stands: as every rank told it, and what makes it so on this rank."""
    for key in stage.keys:
        if _is_at(finding, key):
            own = keys.get(key.first.storage)
            return [told.suppressed for told in key.present], () if own is None else own.suppressed
    for source in stage.sources:
        if (finding.key, finding.hook, finding.path, finding.line) == (source.name, "update", source.path, source.line):
            local = sources.get(source.name)
            return source.suppressed, () if local is None else local.suppressed
    return (), ()
