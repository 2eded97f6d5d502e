"""What is judged where the ranks have exchanged facts, and what follows for findings and numbers."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from typing import Any

from lightning_retrieval_guard import _compat
from lightning_retrieval_guard._compat import GuardError
from lightning_retrieval_guard.epoch.facts import KeyFacts
from lightning_retrieval_guard.epoch.views import EpochView, KeyView
from lightning_retrieval_guard.findings import Finding, Numbers
from lightning_retrieval_guard.report.loggers import log_counts
from lightning_retrieval_guard.rules import REGISTRY, judge
from lightning_retrieval_guard.run.collect import collect_key
from lightning_retrieval_guard.run.context import RunContext, Verdict
from lightning_retrieval_guard.run.correct import (
    Fixes,
    composed_targets,
    find_fixes,
    is_left,
    mark_corrected,
    merged_targets,
)
from lightning_retrieval_guard.run.epoch import RunningEpoch
from lightning_retrieval_guard.run.protection import refusing
from lightning_retrieval_guard.run.states import StateMerger
from lightning_retrieval_guard.watch.keys import KeyRecord


class Judgement:
    """Judges the document of an epoch, and acts on it: reports, corrects or raises.

    Args:
        run: The run.
        states: Merges the states of metrics.
        remember: Called with an epoch before its metrics are computed in place of the program.
    """

    def __init__(self, run: RunContext, states: StateMerger, remember: Callable[[RunningEpoch], None]) -> None:
        self._run = run
        self._states = states
        self._remember = remember

    def _judge(self, epoch: RunningEpoch, view: EpochView) -> Verdict:
        findings = mark_corrected(judge(view), epoch.installed, epoch.ordered)
        return self._run.filter.split(findings, view, epoch.record.keys, {**epoch.local, **epoch.local_states})

    # --- what follows -----------------------------------------------------------------------------------------

    def act(self, epoch: RunningEpoch, new: Sequence[KeyView]) -> None:
        """Do what follows from an exchange; nothing is done before all ranks have come to what they will do."""
        view, mode = epoch.view(self._run.world_size), self._run.settings.mode
        verdict = self._judge(epoch, view)
        if mode == "warn":
            # Lightning may hang in the reductions that come next, and then nothing would be said
            urgent = [finding for finding in verdict.reported if REGISTRY[finding.code].spec.precedes_reduction]
            self._run.reporter.log.add(urgent, say=self._run.is_rank_zero)
            return
        refused = [finding for finding in _serious(verdict.reported) if not REGISTRY[finding.code].spec.follows_others]
        fixes = Fixes({}, refused=refused)
        results = _compat.results_of(self._run.trainer)
        if mode == "correct":
            epoch.left |= verdict.left_to_program
            fixes = find_fixes(results or {}, view, new, verdict, epoch.left, self._run.module.device)
            # a number is left to the program only if the metrics that it shows are
            shown = {name for key in epoch.keys if is_left(key, epoch.left) for name in key.first.shows}
            epoch.states = self._states.leave(shown | epoch.left) or epoch.states
            epoch.installed |= merged_targets(epoch.view(self._run.world_size))
            # Lightning computes the metrics next, and gets the values of this document
            self._remember(epoch)
        self._agree(epoch, fixes.refused)
        # what follows is done on every rank: it calls nothing of the guard's that could fail on one of them
        fixes.install(results)
        if results is not None:
            self._leave_numbers(epoch, new, results)
        epoch.installed |= fixes.values.keys() | composed_targets(view, epoch.left)
        # those who computed alone did not hang, because the guard supplied the value
        epoch.installed |= {call.target for call in epoch.computed_alone} | epoch.supplied
        epoch.ordered |= fixes.sorts

    def _leave_numbers(self, epoch: RunningEpoch, keys: Sequence[KeyView], results: Any) -> None:
        for key in keys:
            if not is_left(key, epoch.left):
                continue
            if key.first.kind == "metric":
                epoch.plain.update(source.name for source in key.sources)
            record = epoch.record.keys.get(key.first.storage)
            # of a key that was logged again only the mean is left, in which no value can be replaced
            if record is not None and record.program_value is not None and record.calls == 1:
                _compat.replace_value(results[key.first.storage], record.program_value)

    def _agree(self, epoch: RunningEpoch, refused: Sequence[Finding] = ()) -> None:
        """Go on where all ranks have come this far and none refuses.

        Raises:
            GuardError: With what is refused.
        """
        parts = ("keys", "sources", "unregistered", "flattened")
        is_fed_unevenly = any(states.fault for states in epoch.states)
        if not is_fed_unevenly and not any(message.get(part) for message in epoch.exchanges[-1] for part in parts):
            return  # on every rank: nobody knows of anything to do
        answers = self.confirm(bool(refused))
        if refused:
            self.refuse(refused)
        if any(answers):
            ranks = ", ".join(str(rank) for rank, answer in enumerate(answers) if answer)
            raise GuardError(f"RetrievalGuard: rank(s) {ranks} refused to go on, and tell why.")

    def confirm(self, answer: bool = False) -> list[bool]:
        """The answers of all ranks, once each has come this far."""
        with refusing(self._run.settings):
            return self._run.exchange.agree(answer)

    def refuse(self, findings: Sequence[Finding]) -> None:
        """Raise if any of the findings is more than a note.

        Raises:
            GuardError: With location, code, numbers and fix of each fault.
        """
        refused = _serious(findings)
        if not refused:
            return
        text = self._run.reporter.log.stop(refused)
        self._run.save()  # now, because Lightning tells callbacks of no error in forked and spawned processes
        raise GuardError(text)

    def refuse_weights(self, key: KeyRecord, epoch: RunningEpoch) -> None:
        """Raise if the batch sizes of a key are wrong, where every rank sees the same ones.

        Whether to raise is decided from the sizes alone; only then are the values read, for the message.
        """
        if _serious(self._judge_weights(epoch, collect_key(key, None, None))):
            results: Any = _compat.results_of(self._run.trainer)
            self.refuse(self._judge_weights(epoch, collect_key(key, results[key.call.storage], None)))

    def _judge_weights(self, epoch: RunningEpoch, facts: KeyFacts) -> list[Finding]:
        # every rank sees the same weights, so the facts of this one stand for all
        size = self._run.world_size
        view = EpochView(
            epoch.record.stage, size, (KeyView((facts,) * size),), orders=((),) * size, batches=(1,) * size
        )
        reported = self._run.filter.split(judge(view), view, epoch.record.keys, epoch.local).reported
        return [finding for finding in reported if REGISTRY[finding.code].spec.judges_weights]

    # --- the end of an epoch ----------------------------------------------------------------------------------

    def conclude(self, epoch: RunningEpoch) -> None:
        """Report an epoch of which Lightning has computed every number."""
        view = epoch.view(self._run.world_size)
        verdict = self._judge(epoch, view)
        findings, trainer, log = verdict.reported, self._run.trainer, self._run.reporter.log
        numbers = numbers_of(view, verdict.left_to_program)
        log.end_epoch(epoch.record.stage, numbers, trainer.current_epoch, trainer.global_step)
        # with several ranks only some may see it, and the others would wait for a rank that raised
        if self._run.settings.mode == "strict" and self._run.world_size == 1:
            self.refuse([finding for finding in findings if REGISTRY[finding.code].spec.follows_others])
        log.add(findings, say=self._run.is_rank_zero)
        is_counted = bool(epoch.keys or findings) and epoch.record.stage != "sanity_check"
        if self._run.is_rank_zero and self._run.settings.log_findings and is_counted:
            log_counts(trainer.loggers, log.count_at(trainer.global_step, findings), trainer.global_step)


def _serious(findings: Sequence[Finding]) -> list[Finding]:
    return [finding for finding in findings if finding.is_serious]


# --- what the report needs of an epoch ------------------------------------------------------------------------


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
