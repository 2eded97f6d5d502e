"""The epochs of a run: when the ranks exchange facts, what is judged, and what follows for findings and numbers."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

from lightning_retrieval_guard import _compat
from lightning_retrieval_guard._compat import GuardError
from lightning_retrieval_guard.epoch.documents import Message, make_key_views
from lightning_retrieval_guard.epoch.facts import ComputeCall, KeyFacts
from lightning_retrieval_guard.epoch.source_view import SourceView
from lightning_retrieval_guard.epoch.values import Outcome
from lightning_retrieval_guard.epoch.views import EpochView, KeyView
from lightning_retrieval_guard.findings import Finding
from lightning_retrieval_guard.report.contents import StageCounts
from lightning_retrieval_guard.report.loggers import log_counts
from lightning_retrieval_guard.rules import REGISTRY
from lightning_retrieval_guard.rules.judge import judge
from lightning_retrieval_guard.rules.spec import RuleSpec
from lightning_retrieval_guard.run.collect import FactCollector, collect_key, refusing
from lightning_retrieval_guard.run.context import RunContext
from lightning_retrieval_guard.run.correct import (
    Fixes,
    compose,
    composed_targets,
    find_fixes,
    is_left,
    mark_corrected,
    merged_targets,
)
from lightning_retrieval_guard.run.epoch import RunningEpoch
from lightning_retrieval_guard.run.sources import LocalSource, SourceFinder
from lightning_retrieval_guard.run.states import StateMerger
from lightning_retrieval_guard.run.summary import counts_of, numbers_of
from lightning_retrieval_guard.run.suppression_filter import Verdict
from lightning_retrieval_guard.run.synchronize import Meeting, Synchronizer, Wants
from lightning_retrieval_guard.watch.call_site import user_call_site
from lightning_retrieval_guard.watch.functionals import flattened_of
from lightning_retrieval_guard.watch.keys import KeyRecord
from lightning_retrieval_guard.watch.metric_history import ask
from lightning_retrieval_guard.watch.metric_lives import MetricRecord
from lightning_retrieval_guard.watch.metrics import MetricWatch
from lightning_retrieval_guard.watch.suppressions import patterns_of
from lightning_retrieval_guard.watch.unregistered import unregistered_of

Find = Callable[[list[KeyRecord]], dict[str, LocalSource]]


class Synchronized(NamedTuple):
    """The rows of a metric when the ranks exchanged facts.

    Attributes:
        stamp: Of the metric's record then.
        source: What the ranks know of them.
    """

    stamp: tuple[int, int]
    source: SourceView


class Epochs:
    """The epochs that run now, at most one for each stage."""

    def __init__(self, run: RunContext, watch: MetricWatch) -> None:
        self.counts: dict[str, StageCounts] = {}
        self.synchronized: dict[int, Synchronized] = {}
        self._run = run
        self._watch = watch
        self._finder = SourceFinder(run, watch)
        self.states = StateMerger(run, watch, self._finder.by_name)
        self._collector = FactCollector(run, watch, self._finder, self.states)
        self._synchronizer = Synchronizer(run.exchange, run.settings.query_scope, self._finder.metric)
        self._running: dict[str, RunningEpoch] = {}
        self._count = itertools.count()
        self._numbers: set[int] = set()

    def current(self) -> RunningEpoch | None:
        """The epoch that runs now, begun where it was not."""
        stage = _compat.stage_name(self._run.trainer)
        if stage is None or stage == "predict":
            return None
        if stage not in self._running:
            number = next(self._count)
            self._numbers.add(number)
            self._running[stage] = RunningEpoch(stage, number, self._numbers)
            self._watch.start_stage(stage)
        return self._running[stage]

    def clear(self) -> None:
        """Forget the epochs that run, and with them all rows."""
        self.synchronized.clear()
        self.states.clear()
        self._running.clear()
        self._numbers.clear()

    # --- the ranks exchange facts -----------------------------------------------------------------------------

    def end_batches(self) -> None:
        """All batches of a dataloader are over, and Lightning has not combined anything yet."""
        epoch = self.current()
        if epoch is None or not epoch.record.fresh:
            return
        self.synchronized.clear()
        epoch.record.end_batches()
        self._watch.start_batch()
        self._synchronize(epoch, "batches", lambda keys: self._finder.in_stage(epoch.record, keys))

    def end_hooks(self) -> None:
        """The module's epoch-end hook is over: everything of the epoch is logged."""
        epoch = self.current()
        if epoch is not None and epoch.may_go_on:
            epoch.is_complete = True
            find = self._finder.behind_keys
            self._synchronize(epoch, "epoch", lambda keys: find(epoch.record, keys, epoch.local))

    def join_from_outside(self) -> None:
        """This rank has no batch and skips the whole loop; the others wait for it."""
        epoch = self.current()
        if epoch is not None:
            epoch.skipped = True
        self.end_batches()
        self.end_hooks()
        self.end()

    def _new_keys(self, epoch: RunningEpoch) -> list[KeyRecord]:
        record = epoch.record
        keys = [key for key in record.keys.values() if key.on_epoch and key.call.storage not in record.judged]
        record.judged.update(key.call.storage for key in keys)
        return keys

    def _synchronize(self, epoch: RunningEpoch, point: str, find: Find) -> None:
        record, corrects = epoch.record, self._run.settings.corrects
        keys = self._new_keys(epoch)
        sources = find(keys)
        epoch.local.update(sources)
        epoch.local_states = self.states.local(record, record.keys.values())
        label = f"{record.stage}/{record.dataloader or 0}/{point}"
        meeting = self._meet(label, self._collector.message(epoch, keys), sources, self._collector.wants)
        epoch.exchanges.append(meeting.messages)
        self.counts[record.stage] = counts_of(epoch.exchanges)
        epoch.sources.update(meeting.sources)
        epoch.states = self.states.sync(meeting.messages, epoch.local_states)
        new = make_key_views(record.stage, meeting.messages, epoch.sources, corrects)
        new = self._ask(epoch, new) if corrects or self._run.world_size == 1 else new
        new = [compose(epoch, key) if key.parts else key for key in new]
        epoch.keys += new
        self._act(epoch, new)

    def _meet(self, label: str, message: Message, sources: Mapping[str, LocalSource], wants: Wants) -> Meeting:
        with refusing(self._run.settings):
            return self._synchronizer.sync(label, message, sources, wants)

    def _ask(self, epoch: RunningEpoch, keys: Sequence[KeyView]) -> list[KeyView]:
        """Let metrics that keep no rows say what the epoch's value is, where keys show something else.

        That makes metrics combine ranks by themselves, so it is done where the number is replaced, or on one device.
        """
        alone = self._run.world_size == 1
        if not alone and any(key.can_ask for key in keys):
            self._confirm()
        return [replace(key, asked=self._answer(epoch, key, alone)) if key.can_ask else key for key in keys]

    def _answer(self, epoch: RunningEpoch, key: KeyView, alone: bool) -> float | None:
        return ask(epoch.record.keys[key.first.storage].history.metric, alone)

    def _view(self, epoch: RunningEpoch) -> EpochView:
        last = epoch.exchanges[-1] if epoch.exchanges else []
        return EpochView(
            stage=epoch.record.stage,
            world_size=self._run.world_size,
            keys=tuple(epoch.keys),
            sources=tuple(epoch.sources.values()),
            states=tuple(epoch.states),
            orders=epoch.orders,
            batches=tuple(message["batches"] for message in last),
            repeated=max((min(message["repeated"] for message in told) for told in epoch.exchanges), default=0),
            declared_scope=self._run.settings.query_scope,
            monitored=frozenset(key for message in last for key in message["monitored"]),
            unregistered=tuple(unregistered_of(epoch.exchanges)),
            computed_alone=tuple(epoch.computed_alone) if last else (),
            flattened=tuple(flattened_of(epoch.exchanges)),
            gathers_updates=_compat.UNEVEN_LISTS.shown_by("torchmetrics"),
            corrected=frozenset(epoch.installed),
            is_complete=epoch.is_complete or not epoch.may_go_on,
        )

    def _judge(self, epoch: RunningEpoch, view: EpochView) -> Verdict:
        findings = mark_corrected(judge(view), epoch.installed, epoch.ordered)
        return self._run.filter.split(findings, view, epoch.record.keys, {**epoch.local, **epoch.local_states})

    # --- what follows -----------------------------------------------------------------------------------------

    def _act(self, epoch: RunningEpoch, new: Sequence[KeyView]) -> None:
        """Do what follows from an exchange; nothing is done before all ranks have come to what they will do."""
        view, mode = self._view(epoch), self._run.settings.mode
        verdict = self._judge(epoch, view)
        if mode == "warn":
            urgent = [finding for finding in verdict.reported if spec_of(finding).precedes_reduction]
            self._run.log.add(urgent, say=self._run.is_rank_zero)
            return
        fixes = Fixes({}, refused=[one for one in serious(verdict.reported) if not spec_of(one).follows_others])
        results = _compat.results_of(self._run.trainer)
        if mode == "correct":
            epoch.left |= verdict.left_to_program
            fixes = find_fixes(results or {}, view, new, verdict, epoch.left, self._run.module.device)
            shown = {name for key in epoch.keys if is_left(key, epoch.left) for name in key.first.shows}
            epoch.states = self.states.leave(shown | epoch.left) or epoch.states
            epoch.installed |= merged_targets(self._view(epoch))
            self._remember(epoch)
        self._agree(epoch, fixes.refused)
        # what follows is done on every rank: it calls nothing of the guard's that could fail on one of them
        fixes.install(results)
        if results is not None:
            self._leave_numbers(epoch, new, results)
        epoch.installed |= fixes.values.keys() | composed_targets(view, epoch.left)
        epoch.installed |= {call.target for call in epoch.computed_alone} | epoch.supplied
        epoch.ordered |= fixes.sorts

    def _leave_numbers(self, epoch: RunningEpoch, keys: Sequence[KeyView], results: Any) -> None:
        """Have the program's own values logged where numbers are left to it."""
        for key in keys:
            if not is_left(key, epoch.left):
                continue
            if key.first.kind == "metric":
                epoch.plain.update(source.name for source in key.sources)
            record = epoch.record.keys.get(key.first.storage)
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
        answers = self._confirm(bool(refused))
        if refused:
            self.refuse(refused)
        if any(answers):
            ranks = ", ".join(str(rank) for rank, answer in enumerate(answers) if answer)
            raise GuardError(f"RetrievalGuard: rank(s) {ranks} refused to go on, and tell why.")

    def _confirm(self, answer: bool = False) -> list[bool]:
        with refusing(self._run.settings):
            return self._run.exchange.agree(answer)

    def _remember(self, epoch: RunningEpoch) -> None:
        """Note for the metrics that now have a value over all ranks what it is, until they are fed again."""
        names = {name: source for name, source in epoch.local.items() if name in epoch.sources}
        for metric, record in self._watch.row_records():
            lives = self._finder.part([record.life], epoch.record).lives
            name = next((name for name, source in names.items() if source.shows(lives)), None)
            if name is None and not _compat.row_states(metric)[0]:
                name = self._finder.name(record)
            if name in epoch.sources:
                self.synchronized[id(record)] = Synchronized(record.stamp, epoch.sources[name])

    def refuse(self, findings: Sequence[Finding]) -> None:
        """Raise if any of the findings is more than a note.

        Raises:
            GuardError: With location, code, numbers and fix of each fault.
        """
        refused = serious(findings)
        if not refused:
            return
        text = self._run.log.stop(refused)
        self._run.save()  # now, because Lightning tells callbacks of no error in forked and spawned processes
        raise GuardError(text)

    def refuse_weights(self, key: KeyRecord, epoch: RunningEpoch) -> None:
        """Raise if the batch sizes of a key are wrong, where every rank sees the same ones.

        Whether to raise is decided from the sizes alone; only then are the values read, for the message.
        """
        if serious(self._judge_weights(epoch, collect_key(key, None, None))):
            results: Any = _compat.results_of(self._run.trainer)
            self.refuse(self._judge_weights(epoch, collect_key(key, results[key.call.storage], None)))

    def _judge_weights(self, epoch: RunningEpoch, facts: KeyFacts) -> list[Finding]:
        size = self._run.world_size
        view = EpochView(
            epoch.record.stage, size, (KeyView((facts,) * size),), orders=((),) * size, batches=(1,) * size
        )
        reported = self._run.filter.split(judge(view), view, epoch.record.keys, epoch.local).reported
        return [finding for finding in reported if spec_of(finding).judges_weights]

    # --- the end of an epoch ----------------------------------------------------------------------------------

    def end(self) -> None:
        """Lightning has computed every number of the epoch."""
        self.synchronized.clear()
        self.states.clear()
        epoch = self._leave()
        if epoch is None:
            return
        epoch.is_complete = True
        epoch.keys = list(self._with_computed(epoch))
        view = self._view(epoch)
        verdict = self._judge(epoch, view)
        findings, trainer, log = verdict.reported, self._run.trainer, self._run.log
        numbers = numbers_of(view, verdict.left_to_program)
        log.end_epoch(epoch.record.stage, numbers, trainer.current_epoch, trainer.global_step)
        if self._run.settings.mode == "strict" and self._run.world_size == 1:
            self.refuse([finding for finding in findings if spec_of(finding).follows_others])
        log.add(findings, say=self._run.is_rank_zero)
        is_counted = bool(epoch.keys or findings) and epoch.record.stage != "sanity_check"
        if self._run.is_rank_zero and self._run.settings.log_findings and is_counted:
            log_counts(trainer.loggers, log.count_at(trainer.global_step, findings), trainer.global_step)

    def _leave(self) -> RunningEpoch | None:
        """The epoch that runs now is over."""
        epoch = self._running.pop(_compat.stage_name(self._run.trainer) or "", None)
        if epoch is not None:
            self._numbers.discard(epoch.record.epoch)
        return epoch

    def _with_computed(self, epoch: RunningEpoch) -> Iterator[KeyView]:
        """The keys with what Lightning computed, where the guard put nothing in its place."""
        results = _compat.results_of(self._run.trainer) or {}
        for key in epoch.keys:
            result = None if self._run.settings.corrects else results.get(key.first.storage)
            computed = _compat.result_computed(result) if result is not None else None
            yield key if computed is None else replace(key, computed=float(computed))

    # --- values -----------------------------------------------------------------------------------------------

    def name(self, record: MetricRecord) -> str:
        """The name under which all ranks know a metric."""
        return self._finder.name(record)

    def outcome(self, record: MetricRecord, epoch: RunningEpoch, syncs: bool) -> Outcome | None:
        """The value of a metric over all ranks; ``None`` where the program's own value stands.

        Args:
            record: The metric.
            epoch: The epoch that runs.
            syncs: Whether the program lets the metric combine ranks, so that all ranks are here.
        """
        remembered = self.synchronized.get(id(record))
        current = remembered is not None and remembered.stamp == record.stamp
        source = remembered.source if remembered is not None and current else None
        if source is None and syncs:
            source = self._meet_for(record, epoch)
        if source is None or not source.plan.has_rows or source.name in epoch.left | epoch.plain:
            return None
        outcome = source.outcome
        # on one device the program's number stands, and where chance decides only torchmetrics knows which it is
        unsure = outcome.by_chance or outcome.error is not None or outcome.value is None
        alone = self._run.world_size == 1 and not source.plan.ids_restart
        return None if alone and unsure else outcome

    def note_compute(self, record: MetricRecord, epoch: RunningEpoch, syncs: bool) -> None:
        """The program computes a metric, and the guard supplies the value without a wait."""
        remembered = self.synchronized.get(id(record))
        name = self.name(record) if remembered is None else remembered.source.name
        if name not in epoch.computed:
            site = user_call_site()
            hook = _compat.current_hook(self._run.module) or ""
            suppressed = patterns_of(self._run.suppressions.at(site))
            epoch.computed[name] = ComputeCall(name, hook, site.path, site.line, syncs, suppressed)

    def needs_program_value(self, record: MetricRecord, epoch: RunningEpoch) -> bool:
        """Whether a rule that corrects may be ignored where the value of a metric is going to be logged.

        Then the program's own value is worked out too. Ranks that were fed unequally often have none.
        """
        remembered = self.synchronized.get(id(record))
        uneven = remembered is not None and remembered.source.plan.uneven
        return not uneven and self.may_ignore(epoch)

    def may_ignore(self, epoch: RunningEpoch) -> bool:
        """Whether a rule may be ignored at any log call, as far as all ranks tell."""
        return any(message["ignores"] for messages in epoch.exchanges[-1:] for message in messages)

    def _meet_for(self, record: MetricRecord, epoch: RunningEpoch) -> SourceView:
        """A metric that was fed after the batches: all ranks compute it now, as they would without the guard."""
        local = self._finder.of_metric(record, epoch.record)
        label = f"{epoch.record.stage}/compute/{local.name}"
        message = self._collector.message(epoch, [])
        meeting = self._meet(label, message, {local.name: local}, lambda *_: True)
        epoch.local[local.name] = local
        epoch.sources.update(meeting.sources)
        self._remember(epoch)
        self._confirm()
        return epoch.sources[local.name]


def spec_of(finding: Finding) -> RuleSpec:
    """The specification of the rule that a finding is of."""
    return REGISTRY[finding.code].spec


def serious(findings: Sequence[Finding]) -> list[Finding]:
    """The findings that change a number, or stop the run."""
    return [finding for finding in findings if finding.is_serious]
