"""Keeps findings and numbers of a guard, and says each fault once."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, astuple, replace
from typing import Any

from lightning_retrieval_guard.findings import Effect, Finding, Numbers, Severity
from lightning_retrieval_guard.report.document import EpochNumbers
from lightning_retrieval_guard.report.faults import group, judge_keys, verdict
from lightning_retrieval_guard.report.loggers import count
from lightning_retrieval_guard.report.terminal import render_error, say, warn_at, warn_of
from lightning_retrieval_guard.report.text import printable

SANITY_CHECK = "sanity_check"
_Identity = tuple[str, str, str, int]
_versions_warned_of: set[str] = set()


class FindingLog:
    """The findings of a guard, one for each rule, key and line, and the numbers of every key in every epoch.

    Attributes:
        history: For every logged key its numbers of each epoch; the sanity check has none.
        stopped: The codes for which strict mode ended a run.
        report: The file that this guard writes its report to; empty where it writes none.
        earlier: The report of an earlier run that stood there, under its new name; empty where none did.
    """

    def __init__(self) -> None:
        self.report = self.earlier = ""
        self.history: dict[str, tuple[EpochNumbers, ...]] = {}
        self.stopped: tuple[str, ...] = ()
        self._findings: dict[_Identity, Finding] = {}
        self._said: set[_Identity] = set()
        self._named: set[_Identity] = set()
        self._unwritten = False
        self.start_run()

    def start_run(self) -> None:
        """A run begins: its last line is about its own findings and keys."""
        self._of_run: dict[_Identity, Finding] = {}
        self._numbers: dict[str, Numbers] = {}
        self._counted: tuple[int, Counter[str]] = (0, Counter())

    @property
    def findings(self) -> list[Finding]:
        """All findings, in the order in which they were found."""
        return list(self._findings.values())

    def add(self, findings: Iterable[Finding], *, say: bool) -> None:
        """Take in findings, and warn of the faults that are new and more than a note.

        Those of the sanity check are named; what they come to is said after the first epoch.

        Args:
            findings: Of one stage.
            say: Whether this process is the one that speaks.

        Raises:
            GuardWarning: The user turned the category into an error.
        """
        every = list(findings)
        self._add([finding for finding in every if finding.stage == SANITY_CHECK], self._named, say, numbers=False)
        self._add([finding for finding in every if finding.stage != SANITY_CHECK], self._said, say, numbers=True)

    def _add(self, findings: Iterable[Finding], said: set[_Identity], say: bool, numbers: bool) -> None:
        fresh = []
        for finding in findings:
            # the batches of a sanity check say nothing of the size of a fault
            kept = finding if numbers else replace(finding, effect=None)
            _merge(self._of_run, kept)
            merged = _merge(self._findings, kept)
            # a fault is said once; later epochs only count
            if merged.severity is not Severity.NOTE and merged.identity not in said:
                fresh.append(merged if numbers else finding)
        if say:
            for fault in group(fresh):
                said.update(finding.identity for finding in fault.findings)
                warn_of(fault, numbers=numbers)

    def end_epoch(self, stage: str, numbers: Mapping[str, Numbers], epoch: int, global_step: int) -> None:
        """Take in the numbers of every key at the end of an epoch."""
        if stage == SANITY_CHECK:
            return
        self._numbers.update(numbers)
        for key, key_numbers in numbers.items():
            self.history[key] = (*self.history.get(key, ()), EpochNumbers(stage, epoch, global_step, key_numbers))

    def count_at(self, step: int, findings: Sequence[Finding]) -> Counter[str]:
        """How many findings the stages of this run have had at a step: loggers keep one number a step."""
        last, before = self._counted
        counts = count(findings)
        if last == step:
            counts.update(before)
        self._counted = (step, counts)
        return counts

    def stop(self, findings: Iterable[Finding]) -> str:
        """Take in the findings for which a run ends, and say what the error is to say."""
        serious = list(findings)
        self.add(serious, say=False)
        self.stopped = tuple(dict.fromkeys(fault.first.code for fault in group(serious)))
        return render_error(serious)

    def to_payload(self) -> dict[str, Any]:
        """Everything as JSON can hold it, NaN and infinity as Python has them."""
        return {
            "history": {key: [astuple(epoch) for epoch in epochs] for key, epochs in self.history.items()},
            "stopped": self.stopped,
            "report": self.report,
            "earlier": self.earlier,
            "findings": [asdict(finding) for finding in self._findings.values()],
            "of_run": [asdict(finding) for finding in self._of_run.values()],
            "numbers": self._numbers,
            "said": sorted(self._said),
            "named": sorted(self._named),
        }

    @classmethod
    def from_payload(cls, payload: Mapping[str, Any]) -> FindingLog:
        """The log that gave the payload."""
        log = cls()
        log.stopped = tuple(payload["stopped"])
        log.report, log.earlier = payload["report"], payload["earlier"]
        for key, epochs in payload["history"].items():
            log.history[key] = tuple(
                EpochNumbers(stage, epoch, step, Numbers(*numbers)) for stage, epoch, step, numbers in epochs
            )
        log._findings = {finding.identity: finding for finding in map(finding_from, payload["findings"])}
        log._of_run = {finding.identity: finding for finding in map(finding_from, payload["of_run"])}
        log._numbers = {key: Numbers(*numbers) for key, numbers in payload["numbers"].items()}
        log._said, log._named = ({(c, k, p, n) for c, k, p, n in payload[name]} for name in ("said", "named"))
        return log

    @property
    def verdict(self) -> str:
        """What the last run came to, in a few words."""
        findings = list(self._of_run.values())
        return verdict(judge_keys(self._numbers, findings), findings)

    def end_run(self) -> None:
        """Close a run with one line."""
        parts = [f"RetrievalGuard: {self.verdict}"]
        parts += [f"Report: {printable(self.report)}"] if self.report else []
        parts += [f"An earlier one is now {printable(self.earlier)}"] if self.earlier else []
        say(". ".join(parts))

    def warn_of_unwritten(self, error: OSError, path: str, line: int) -> None:
        """Warn, once, that the report cannot be written; everything else goes on.

        Args:
            error: Why.
            path: The user's file.
            line: The line in it.
        """
        if not self._unwritten:
            self._unwritten = True
            text = printable(f"RetrievalGuard: the report could not be written ({error}). The run goes on.")
            warn_at(text, path, line)


def finding_from(fields: Mapping[str, Any]) -> Finding:
    """A finding from its fields, as JSON holds them."""
    effect = fields["effect"]
    changed = {
        "severity": Severity(fields["severity"]),
        "ranks": tuple(fields["ranks"]),
        "updates": tuple((path, line) for path, line in fields.get("updates", ())),
        "effect": None if effect is None else Effect(**effect),
    }
    return Finding(**{**fields, **changed})


def _merge(into: dict[_Identity, Finding], finding: Finding) -> Finding:
    earlier = into.get(finding.identity)
    if earlier is not None and (earlier.stage != SANITY_CHECK or finding.stage == SANITY_CHECK):
        ranks = tuple(sorted({*earlier.ranks, *finding.ranks}))
        effect = finding.effect if finding.effect is not None else earlier.effect
        merged = replace(finding, count=earlier.count + 1, ranks=ranks).with_effect(effect)
        # what was wrong once stays wrong, even if a later epoch shows no effect
        severity = earlier.severity if finding.severity is Severity.NOTE else finding.severity
        finding = replace(merged, severity=severity, corrected=earlier.corrected or finding.corrected)
    into[finding.identity] = finding
    return finding


def warn_of_versions(unchecked: Iterable[str], path: str, line: int) -> None:
    """Warn of packages whose version the guard was not checked with, of each once in a process.

    Args:
        unchecked: A clause for each.
        path: The user's file.
        line: The line in it.
    """
    for clause in unchecked:
        if clause not in _versions_warned_of:
            _versions_warned_of.add(clause)
            text = printable(
                f"RetrievalGuard: {clause}. It goes on, and steps aside where it fails, but may judge or correct"
                " numbers wrongly. Install a version of that range, or a newer lightning-retrieval-guard."
            )
            warn_at(text, path, line)
