"""Keeps findings and numbers of a guard, says each fault once, and hands all to the process that called the Trainer."""

from __future__ import annotations

import json
import os
import secrets
import tempfile
import weakref
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, astuple, replace
from pathlib import Path
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
        self._said: set[tuple[_Identity, bool]] = set()  # each with and without the numbers of a whole epoch
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
            say: Whether this process is the one that warns.

        Raises:
            GuardWarning: The user turned the category into an error; all findings are kept.
        """
        new: dict[bool, list[Finding]] = {False: [], True: []}
        for finding in findings:
            has_numbers = finding.stage != SANITY_CHECK
            # The few batches of a sanity check do not show the size of a fault.
            kept = finding if has_numbers else replace(finding, effect=None)
            _merge(self._of_run, kept)
            merged = _merge(self._findings, kept)
            if merged.is_serious and (merged.identity, has_numbers) not in self._said:
                new[has_numbers].append(merged if has_numbers else finding)
        for has_numbers, unsaid in new.items() if say else ():
            for fault in group(unsaid):
                self._said.update((finding.identity, has_numbers) for finding in fault.findings)
                warn_of(fault, numbers=has_numbers)

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
            "stopped": self.stopped,
            "report": self.report,
            "earlier": self.earlier,
            "history": {key: [astuple(epoch) for epoch in epochs] for key, epochs in self.history.items()},
            "findings": [asdict(finding) for finding in self._findings.values()],
            "of_run": [asdict(finding) for finding in self._of_run.values()],
            "numbers": self._numbers,
            "said": sorted(self._said),
        }

    @classmethod
    def from_payload(cls, payload: Mapping[str, Any]) -> FindingLog:
        """The log that gave the payload."""
        log = cls()
        log.stopped, log.report, log.earlier = tuple(payload["stopped"]), payload["report"], payload["earlier"]
        for key, epochs in payload["history"].items():
            log.history[key] = tuple(
                EpochNumbers(stage, epoch, step, Numbers(*numbers)) for stage, epoch, step, numbers in epochs
            )
        log._findings, log._of_run = (
            {finding.identity: finding for finding in map(finding_from, payload[name])}
            for name in ("findings", "of_run")
        )
        log._numbers = {key: Numbers(*numbers) for key, numbers in payload["numbers"].items()}
        log._said = {((code, key, path, line), numbers) for (code, key, path, line), numbers in payload["said"]}
        return log

    @property
    def verdict(self) -> str:
        """What the last run came to, in a few words."""
        findings = self._of_run.values()
        return verdict(judge_keys(self._numbers, findings), findings)

    def end_run(self) -> None:
        """Close a run with one line."""
        clauses = [f"RetrievalGuard: {self.verdict}"]
        clauses += [f"Report: {printable(self.report)}"] if self.report and not self._unwritten else []
        clauses += [f"An earlier one is now {printable(self.earlier)}"] if self.earlier else []
        say(". ".join(clauses))

    def warn_of_unwritten(self, error: OSError, path: str, line: int) -> None:
        """Warn at the user's line, once, that the report cannot be written; everything else goes on."""
        if not self._unwritten:
            self._unwritten = True
            text = f"RetrievalGuard: the report could not be written ({error}). The run goes on."
            warn_at(printable(text), path, line)


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
    # What the sanity check saw counts no longer once a whole epoch was seen.
    if earlier is not None and (earlier.stage != SANITY_CHECK or finding.stage == SANITY_CHECK):
        ranks = tuple(sorted({*earlier.ranks, *finding.ranks}))
        wrong = [each for each in (earlier, finding) if each.is_serious] or [earlier, finding]
        corrected = all(each.corrected for each in wrong)
        # a number that was replaced in an earlier epoch is none that was logged
        effect = finding.effect or (earlier.effect if corrected or not earlier.corrected else None)
        merged = replace(finding, count=earlier.count + 1, ranks=ranks, corrected=corrected).with_effect(effect)
        # What was wrong once stays wrong, even if a later epoch shows no effect.
        finding = replace(merged, severity=finding.severity if finding.is_serious else earlier.severity)
    into[finding.identity] = finding
    return finding


def warn_of_versions(unchecked: Iterable[str], path: str, line: int) -> None:
    """Warn at the user's line of packages whose version the guard was not checked with, of each once in a process.

    Args:
        unchecked: A clause for each.
        path: The user's file.
        line: The line in it.
    """
    for clause in unchecked:
        if clause not in _versions_warned_of:
            _versions_warned_of.add(clause)
            text = (
                f"RetrievalGuard: {clause}. It goes on, and steps aside where it fails, but may judge or correct"
                " numbers wrongly. Install a version of that range, or a newer lightning-retrieval-guard."
            )
            warn_at(printable(text), path, line)


# --- from a forked or spawned process to its caller ---------------------------------------------------------------


class Handover:
    """A file that rank zero writes and the caller reads: Lightning's own pipe hangs where much is sent.

    The file is made where it is needed, for this user alone, and is gone with the guard.
    """

    def __init__(self) -> None:
        self._caller = os.getpid()
        self._path = Path(tempfile.gettempdir(), f"lightning-retrieval-guard-{secrets.token_hex(16)}")
        self._read = 0  # the time of the last version that this process knows
        weakref.finalize(self, _remove, self._path, self._caller)

    def give(self, log: FindingLog) -> None:
        """Write everything, where another process called the Trainer; raises OSError where that is not possible."""
        if os.getpid() == self._caller:
            return
        # written beside and renamed, so that the caller never reads half of it
        draft = self._path.with_suffix(f".{secrets.token_hex(8)}")
        try:
            # In ASCII, with escapes, because a key may hold half of a surrogate pair.
            with open(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="ascii") as file:
                json.dump(log.to_payload(), file)
            written = draft.stat().st_mtime_ns
            os.replace(draft, self._path)
            self._read = written
        except BaseException:
            draft.unlink(missing_ok=True)
            raise

    def take(self) -> FindingLog | None:
        """What another process wrote since this one last looked; ``None`` where that is nothing."""
        written = self._path.stat().st_mtime_ns if self._path.exists() else self._read
        # no file, or one that this process has read or written
        if written == self._read:
            return None
        self._read = written
        return FindingLog.from_payload(json.loads(self._path.read_text(encoding="ascii")))


def _remove(path: Path, process: int) -> None:
    if os.getpid() == process:
        path.unlink(missing_ok=True)
