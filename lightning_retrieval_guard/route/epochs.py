"""The epochs of a run: when the ranks meet, what they tell, and what follows for findings and numbers."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from lightning_retrieval_guard import _compat
from lightning_retrieval_guard.exchange import Exchange, ExchangeError
from lightning_retrieval_guard.findings import Finding, GuardError, Numbers, Severity
from lightning_retrieval_guard.observe.behind import ask
from lightning_retrieval_guard.observe.keys import KeyRecord
from lightning_retrieval_guard.observe.metrics import MetricWatch
from lightning_retrieval_guard.observe.segments import MetricRecord
from lightning_retrieval_guard.observe.stage import StageRecord
from lightning_retrieval_guard.observe.unregistered import unregistered_of
from lightning_retrieval_guard.report.columns import printable
from lightning_retrieval_guard.report.contents import StageCounts
from lightning_retrieval_guard.report.log import FindingLog
from lightning_retrieval_guard.report.loggers import log_counts
from lightning_retrieval_guard.retrieval.plan import Scope
from lightning_retrieval_guard.retrieval.values import Outcome
from lightning_retrieval_guard.route import judge
from lightning_retrieval_guard.route.epoch import Epoch
from lightning_retrieval_guard.route.meeting import Meeting, Message, RanksFailedError, Table, Wants, failure_text
from lightning_retrieval_guard.route.quiet import Quiet, Terms, sources_behind
from lightning_retrieval_guard.route.sources import LocalSource, SourceFinder
from lightning_retrieval_guard.route.telling import Teller, why_ranks_missed
from lightning_retrieval_guard.rules import REGISTRY
from lightning_retrieval_guard.rules.told import KeyFacts, SourceView
from lightning_retrieval_guard.rules.view import KeyView, StageView, orders_that_meet
from lightning_retrieval_guard.settings import Settings

Find = Callable[[list[KeyRecord]], dict[str, LocalSource]]


class Epochs:
    """The epochs that run now, at most one for each stage."""

    def __init__(
        self,
        trainer: Any,
        module: Any,
        settings: Settings,
        log: FindingLog,
        exchange: Exchange,
        watch: MetricWatch,
        quiet: Quiet,
        save: Callable[[], None],
    ) -> None:
        self.numbers: dict[str, Numbers] = {}
        self.counts: dict[str, StageCounts] = {}
        self._trainer = trainer
        self._module = module
        self._settings = settings
        self._log = log
        self._exchange = exchange
        self._watch = watch
        self._quiet = quiet
        self._save = save
        self._finder = SourceFinder(trainer, module, watch, exchange, settings)
        self._teller = Teller(trainer, module, settings, exchange, watch, self._finder)
        self._table = Table(exchange, self._scope, settings.corrects, self._finder.metric)
        self._running: dict[str, Epoch] = {}
        self._count = itertools.count()
        self._numbers: set[int] = set()

    @property
    def _scope(self) -> Scope:
        declared = self._settings.query_scope
        return "as given" if declared == "auto" and not self._settings.allows("LRG301") else declared

    def current(self) -> Epoch | None:
        """The epoch that runs now, begun where it was not."""
        stage = _compat.stage_name(self._trainer)
        if stage is None or stage == "predict":
            return None
        if stage not in self._running:
            number = next(self._count)
            self._numbers.add(number)
            self._running[stage] = Epoch(stage, number, self._numbers)
            self._watch.start_stage(stage)
        return self._running[stage]

    def clear(self) -> None:
        """Forget the epochs that run, and with them all rows."""
        self._running.clear()
        self._numbers.clear()

    # --- the ranks meet ---------------------------------------------------------------------------------------

    def end_batches(self, failure: str | None) -> None:
        """All batches of a dataloader are over, and Lightning has not combined anything yet."""
        epoch = self.current()
        if epoch is None or not epoch.record.fresh:
            return
        epoch.record.end_batches()
        self._watch.start_batch()
        self._meet(epoch, "batches", failure, lambda keys: self._finder.in_stage(epoch.record, keys))

    def end_hooks(self, failure: str | None) -> None:
        """The module's epoch-end hook is over: everything of the epoch is logged."""
        epoch = self.current()
        if epoch is not None and epoch.may_go_on:
            find = self._finder.behind_keys
            self._meet(epoch, "epoch", failure, lambda keys: find(epoch.record, keys, epoch.local))

    def join_from_outside(self, failure: str | None) -> None:
        """This rank has no batch and skips the whole loop; the others wait for it."""
        self.end_batches(failure)
        self.end_hooks(failure)
        self.end()

    def _leave(self) -> Epoch | None:
        """The epoch that runs now is over."""
        epoch = self._running.pop(_compat.stage_name(self._trainer) or "", None)
        if epoch is not None:
            self._numbers.discard(epoch.record.epoch)
        return epoch

    def _new_keys(self, epoch: Epoch) -> list[KeyRecord]:
        record = epoch.record
        keys = [key for key in record.keys.values() if key.on_epoch and key.storage not in record.judged]
        record.judged.update(key.storage for key in keys)
        return keys

    def _meet(self, epoch: Epoch, point: str, failure: str | None, find: Find) -> None:
        label = f"{epoch.record.stage}/{epoch.record.dataloader or 0}/{point}"
        message, sources = self._prepare(epoch, failure, find)
        meeting = self._hold(label, message, sources, self._teller.wants, self._table)
        epoch.meetings.append(meeting.messages)
        self.counts[epoch.record.stage] = judge.counts_of(epoch.meetings)
        epoch.sources.update(meeting.sources)
        new = judge.view_keys(epoch.record.stage, meeting.messages, epoch.sources, self._settings.corrects)
        if self._quiet.concerns(new):
            view = self._view(epoch, [replace(key, corrected=True) for key in new])
            new = self._quiet.settle(new, view, lambda terms, names: self._meet_on(terms, epoch, label, names))
            self._speaking(epoch, judge.judge(view, self._settings), view)  # notes which suppressions are of use
        epoch.keys.extend(new)
        self._ask(epoch.record, new)
        self._act(epoch, new)

    def _prepare(self, epoch: Epoch, failure: str | None, find: Find) -> tuple[Message, dict[str, LocalSource]]:
        """What this rank brings to a meeting; after a failure, also one in here, nothing but that."""
        if failure is None:
            try:
                keys = self._new_keys(epoch)
                sources = find(keys)
                epoch.local.update(sources)
                return self._teller.message(epoch, keys), sources
            except Exception as error:  # the other ranks wait, and must hear of it
                failure = failure_text(error)
        nothing = {"batches": 0, "samples": 0, "repeated": 0, "monitored": [], "more": True, "keys": []}
        return {"failed": failure, **nothing}, {}

    def _hold(
        self, label: str, message: Message, sources: Mapping[str, LocalSource], wants: Wants, table: Table
    ) -> Meeting:
        try:
            meeting = table.meet(label, message, sources, wants)
        except ExchangeError as error:
            if self._settings.mode == "warn":
                raise
            raise GuardError(printable(why_ranks_missed(error))) from error
        failed = {rank: message["failed"] for rank, message in enumerate(meeting.messages) if message["failed"]}
        if failed:
            raise RanksFailedError(failed)
        return meeting

    def _meet_on(self, terms: Terms, epoch: Epoch, label: str, names: Collection[str]) -> dict[str, SourceView]:
        """Combine rows once more, on terms that all ranks have come to know."""
        message, local = self._prepare(
            epoch, None, lambda _: {name: own for name, own in epoch.local.items() if name in names}
        )
        repeated = 0 if terms.repeated else message["repeated"]
        scope: Scope = "as given" if terms.merged else self._scope
        table = Table(self._exchange, scope, self._settings.corrects, self._finder.metric)
        point = f"{label}/{'merged' * terms.merged}/{'repeated' * terms.repeated}"
        return self._hold(point, {**message, "repeated": repeated}, local, self._teller.wants, table).sources

    def _speaking(self, epoch: Epoch, findings: Sequence[Finding], view: StageView) -> list[Finding]:
        return self._quiet.speaking(findings, view, epoch.record.keys, epoch.local)

    def _judge(self, epoch: Epoch, before_reduction: bool = False) -> list[Finding]:
        view = self._view(epoch, epoch.keys)
        return self._speaking(epoch, judge.judge(view, self._settings, before_reduction), view)

    # --- what follows -----------------------------------------------------------------------------------------

    def _act(self, epoch: Epoch, new: Sequence[KeyView]) -> None:
        results = _compat.results_of(self._trainer)
        if self._settings.corrects:
            if results is not None:
                self._put_in_order(epoch, results)
                judge.correct(results, new, self._settings, self._module)
        elif self._settings.mode == "strict":
            self.refuse(self._judge(epoch))
        else:
            self._log.add(self._judge(epoch, before_reduction=True), say=self._exchange.speaks)

    def _ask(self, stage: StageRecord, new: Sequence[KeyView]) -> None:
        """Let metrics that keep no rows say what the epoch's value is, where keys show something else.

        That makes metrics combine ranks by themselves, so it is done where the number is replaced, or on one device.
        """
        for key in new:
            rule = key.asked_by
            if rule is None or not self._settings.allows(rule):
                continue
            alone = self._exchange.world_size == 1
            if self._settings.corrects or alone:
                key.asked = ask(stage.keys[key.first.storage].lives.metric, alone)

    def _put_in_order(self, epoch: Epoch, results: Any) -> None:
        """Give Lightning's reductions the same order on every rank, or refuse where a key is missing."""
        told = epoch.meetings[-1]
        orders = orders_that_meet(map(judge.order_of_reductions, told), [message["batches"] for message in told])
        if len({tuple(order) for order in orders}) <= 1:
            return
        found = [finding for finding in self._judge(epoch, before_reduction=True) if finding.code == "LRG206"]
        if not found:
            return
        if len({frozenset(order) for order in orders}) > 1:
            self.refuse(found)
        _compat.sort_results(results)
        for key in epoch.keys:
            key.corrected = key.corrected or any(key.first.storage in order for order in orders)

    def _view(self, epoch: Epoch, keys: list[KeyView]) -> StageView:
        last = epoch.meetings[-1] if epoch.meetings else []
        return StageView(
            stage=epoch.record.stage,
            world_size=self._exchange.world_size,
            keys=keys,
            sources=sources_behind(keys, epoch.sources.values()),
            orders=epoch.orders,
            batches=[message["batches"] for message in last],
            repeated=max((min(message["repeated"] for message in told) for told in epoch.meetings), default=0),
            declared_scope=self._settings.query_scope,
            monitored=frozenset(key for message in last for key in message["monitored"]),
            unregistered=unregistered_of(epoch.meetings),
        )

    def refuse(self, findings: Sequence[Finding]) -> None:
        """Raise if any of the findings is more than a note.

        Raises:
            GuardError: With location, code, numbers and fix of each of them.
        """
        serious = judge.serious(findings)
        if not serious:
            return
        self._log.add(serious, say=False)
        self._save()  # now, because Lightning tells callbacks of no error in forked and spawned processes
        raise GuardError("\n".join(printable(f"{found.path}:{found.line}: {found.text()}") for found in serious))

    def refuse_weights(self, key: KeyRecord, epoch: Epoch) -> None:
        """Raise if the batch sizes of a key are wrong, on a loader that gives every rank the same batches.

        Whether to raise is decided from the sizes alone, which are the same on every rank; only then are the values
        read, for the message.
        """
        if not judge.serious(self._judge_weights(epoch, judge.tell_key(key, None, None))):
            return
        results: Any = _compat.results_of(self._trainer)
        found = self._judge_weights(epoch, judge.tell_key(key, results[key.storage], None))
        if self._exchange.world_size > 1:
            found = [replace(finding, severity=Severity.WARNING) for finding in found]
        self.refuse(found)

    def _judge_weights(self, epoch: Epoch, facts: KeyFacts) -> list[Finding]:
        world_size = self._exchange.world_size
        view = StageView(epoch.record.stage, world_size, [KeyView((facts,) * world_size)])
        found = self._speaking(epoch, judge.judge(view, self._settings), view)
        return [finding for finding in found if finding.code in ("LRG101", "LRG102", "LRG103")]

    def end(self) -> None:
        """Lightning has computed every number of the epoch."""
        epoch = self._leave()
        if epoch is None:
            return
        for key, computed in self._computed(epoch):
            key.computed = computed
        view = self._view(epoch, epoch.keys)
        self.numbers.update(judge.numbers_of(view))
        findings = self._speaking(epoch, judge.judge_at_end(view, self._settings), view)
        if self._settings.mode == "strict" and self._exchange.world_size == 1:
            self.refuse([finding for finding in findings if REGISTRY[finding.code].after_others])
        self._log.add(findings, say=self._exchange.speaks)
        if self._exchange.speaks:
            self._log.print_table(epoch.record.stage)
            if self._settings.log_findings and epoch.record.stage != "sanity_check":
                log_counts(self._trainer.loggers, findings, self._trainer.global_step)

    def _computed(self, epoch: Epoch) -> Iterator[tuple[KeyView, float]]:
        """What Lightning computed, where the guard put nothing in its place."""
        results = _compat.results_of(self._trainer) or {}
        for key in epoch.keys if not self._settings.corrects else ():
            result = results.get(key.first.storage)
            computed = _compat.result_computed(result) if result is not None else None
            if computed is not None:
                yield key, float(computed)

    # --- values -----------------------------------------------------------------------------------------------

    def name(self, record: MetricRecord) -> str:
        """The name under which all ranks know a metric."""
        return self._finder.name(record)

    def outcome(self, record: MetricRecord, epoch: Epoch, syncs: bool) -> Outcome | None:
        """The value of a metric over all ranks; ``None`` where the program's own value stands.

        Args:
            record: The metric.
            epoch: The epoch that runs.
            syncs: Whether the program lets the metric combine ranks, so that all ranks are here.
        """
        lives = self._finder.part([record.segment()], epoch.record).lives
        known = next((own for own in epoch.local.values() if own.shows(lives)), None)
        source = epoch.sources.get(known.name if known is not None else self.name(record))
        if source is None or (known is None and _compat.row_states(record.metric())[0]):
            source = self._meet_for(record, epoch) if syncs else None
        if source is None or not source.plan.has_rows:
            return None
        outcome = source.outcome
        # on one device the program's number stands, and where chance decides only torchmetrics knows which it is
        unsure = outcome.by_chance or outcome.error is not None or outcome.value is None
        alone = self._exchange.world_size == 1 and not source.plan.restarting
        return None if alone and unsure else outcome

    def _meet_for(self, record: MetricRecord, epoch: Epoch) -> SourceView:
        """A metric that was fed after the batches: all ranks compute it now, as they would without the guard."""
        local = self._finder.of_metric(record, epoch.record)
        label = f"{epoch.record.stage}/compute/{local.name}"
        meeting = self._hold(label, self._teller.message(epoch, []), {local.name: local}, lambda *_: True, self._table)
        epoch.local[local.name] = local
        epoch.sources.update(meeting.sources)
        return epoch.sources[local.name]
