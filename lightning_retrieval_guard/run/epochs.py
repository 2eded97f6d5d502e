"""The epochs of a run: when the ranks meet, what they tell, and what follows for findings and numbers."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

from lightning_retrieval_guard import _compat
from lightning_retrieval_guard.distributed.exchange import Exchange
from lightning_retrieval_guard.epoch.facts import KeyFacts, SourceView
from lightning_retrieval_guard.epoch.plan import Scope
from lightning_retrieval_guard.epoch.values import Outcome
from lightning_retrieval_guard.epoch.views import KeyView, StageView, orders_that_meet
from lightning_retrieval_guard.findings import Finding, GuardError, Numbers
from lightning_retrieval_guard.report.columns import printable
from lightning_retrieval_guard.report.contents import StageCounts
from lightning_retrieval_guard.report.log import FindingLog
from lightning_retrieval_guard.report.loggers import log_counts
from lightning_retrieval_guard.rules import REGISTRY
from lightning_retrieval_guard.run import judge
from lightning_retrieval_guard.run.collect import FactCollector, refusing
from lightning_retrieval_guard.run.epoch import Epoch
from lightning_retrieval_guard.run.sources import LocalSource, SourceFinder
from lightning_retrieval_guard.run.suppression_filter import SuppressionFilter, Terms, sources_behind
from lightning_retrieval_guard.run.synchronize import Meeting, Message, Table, Wants
from lightning_retrieval_guard.settings import Settings
from lightning_retrieval_guard.watch.keys import KeyRecord
from lightning_retrieval_guard.watch.metric_history import ask
from lightning_retrieval_guard.watch.metric_lives import MetricRecord
from lightning_retrieval_guard.watch.metrics import MetricWatch
from lightning_retrieval_guard.watch.stage import StageRecord
from lightning_retrieval_guard.watch.unregistered import unregistered_of

Find = Callable[[list[KeyRecord]], dict[str, LocalSource]]


class Known(NamedTuple):
    """The rows of a metric when the ranks met.

    Attributes:
        stamp: Of the metric's record then.
        source: What the ranks know of them.
    """

    stamp: tuple[int, int]
    source: SourceView


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
        quiet: SuppressionFilter,
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
        self._teller = FactCollector(trainer, module, settings, exchange, watch, self._finder)
        self._table = Table(exchange, self._scope, settings.corrects, self._finder.metric)
        self._running: dict[str, Epoch] = {}
        self._count = itertools.count()
        self._numbers: set[int] = set()
        self.known: dict[int, Known] = {}

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
        self.known.clear()
        self._running.clear()
        self._numbers.clear()

    # --- the ranks meet ---------------------------------------------------------------------------------------

    def end_batches(self) -> None:
        """All batches of a dataloader are over, and Lightning has not combined anything yet."""
        epoch = self.current()
        if epoch is None or not epoch.record.fresh:
            return
        self.known.clear()
        epoch.record.end_batches()
        self._watch.start_batch()
        self._meet(epoch, "batches", lambda keys: self._finder.in_stage(epoch.record, keys))

    def end_hooks(self) -> None:
        """The module's epoch-end hook is over: everything of the epoch is logged."""
        epoch = self.current()
        if epoch is not None and epoch.may_go_on:
            find = self._finder.behind_keys
            self._meet(epoch, "epoch", lambda keys: find(epoch.record, keys, epoch.local))

    def join_from_outside(self) -> None:
        """This rank has no batch and skips the whole loop; the others wait for it."""
        self.end_batches()
        self.end_hooks()
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

    def _meet(self, epoch: Epoch, point: str, find: Find) -> None:
        label = f"{epoch.record.stage}/{epoch.record.dataloader or 0}/{point}"
        keys = self._new_keys(epoch)
        sources = find(keys)
        epoch.local.update(sources)
        message = self._teller.message(epoch, keys)
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
        if self._settings.corrects or self._exchange.world_size == 1:
            self._ask(epoch.record, new)
        self._act(epoch, new)

    def _hold(
        self, label: str, message: Message, sources: Mapping[str, LocalSource], wants: Wants, table: Table
    ) -> Meeting:
        with refusing(self._settings):
            return table.meet(label, message, sources, wants)

    def _meet_on(self, terms: Terms, epoch: Epoch, label: str, names: Collection[str]) -> dict[str, SourceView]:
        """Combine rows once more, on terms that all ranks have come to know."""
        local = {name: own for name, own in epoch.local.items() if name in names}
        message = self._teller.message(epoch, [])
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
        """Do what follows from a meeting; nothing is done before all ranks have come to what they will do."""
        mode, is_sorted = self._settings.mode, False
        refused: list[Finding] = []
        corrections: list[judge.Correction] = []
        orders: list[list[str]] = []
        results = _compat.results_of(self._trainer)
        if mode == "strict":
            refused = judge.serious(self._judge(epoch))
        elif mode == "warn":
            self._log.add(self._judge(epoch, before_reduction=True), say=self._exchange.rank == 0)
        elif results is not None:
            orders = self._orders(epoch)
            found = self._judge(epoch, before_reduction=True) if orders else []
            is_sorted = any(finding.code == "LRG206" for finding in found)
            if is_sorted and len({frozenset(order) for order in orders}) > 1:
                refused = [finding for finding in found if finding.code == "LRG206"]
            corrections = judge.corrections(results, new, self._settings, self._module)
        if mode == "correct":
            self._know(epoch)
        if mode != "warn":
            self._agree(epoch, refused)
        # what follows is done on every rank: it calls nothing of the guard's that could fail on one of them
        if is_sorted:
            _compat.sort_results(results)
            for key in epoch.keys:
                key.corrected = key.corrected or any(key.first.storage in order for order in orders)
        for key, result, value in corrections:
            _compat.install_result(result, value)
            key.corrected = True

    def _agree(self, epoch: Epoch, refused: Sequence[Finding] = ()) -> None:
        """Go on where all ranks have come this far and none refuses.

        Raises:
            GuardError: With what is refused.
        """
        told = ("keys", "sources", "unregistered")
        if not any(message.get(name) for message in epoch.meetings[-1] for name in told):
            return  # on every rank: nobody knows of anything to do
        answers = self._confirm(bool(refused))
        if refused:
            self.refuse(refused)
        if any(answers):
            ranks = ", ".join(str(rank) for rank, answer in enumerate(answers) if answer)
            raise GuardError(f"RetrievalGuard: rank(s) {ranks} refused to go on, and tell why.")

    def _confirm(self, answer: bool = False) -> list[bool]:
        with refusing(self._settings):
            return self._exchange.agree(answer)

    def _know(self, epoch: Epoch) -> None:
        """Note for the metrics that now have a value over all ranks what it is, until they are fed again."""
        names = {name: own for name, own in epoch.local.items() if name in epoch.sources}
        for metric, record in self._watch.row_records():
            lives = self._finder.part([record.life], epoch.record).lives
            name = next((name for name, own in names.items() if own.shows(lives)), None)
            if name is None and not _compat.row_states(metric)[0]:
                name = self._finder.name(record)
            if name in epoch.sources:
                self.known[id(record)] = Known(record.stamp, epoch.sources[name])

    def _ask(self, stage: StageRecord, new: Sequence[KeyView]) -> None:
        """Let metrics that keep no rows say what the epoch's value is, where keys show something else.

        That makes metrics combine ranks by themselves, so it is done where the number is replaced, or on one device.
        """
        alone = self._exchange.world_size == 1
        asked = [key for key in new if key.asked_by is not None and self._settings.allows(key.asked_by)]
        if asked and not alone:
            self._confirm()
        for key in asked:
            key.asked = ask(stage.keys[key.first.storage].history.metric, alone)

    def _orders(self, epoch: Epoch) -> list[list[str]]:
        """The orders in which ranks would have Lightning combine their keys, where these are not the same."""
        told = epoch.meetings[-1]
        orders = orders_that_meet(map(judge.order_of_reductions, told), [message["batches"] for message in told])
        return orders if len({tuple(order) for order in orders}) > 1 else []

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
        """Raise if the batch sizes of a key are wrong, in a run of one process.

        Whether to raise is decided from the sizes alone; only then are the values read, for the message.
        """
        if judge.serious(self._judge_weights(epoch, judge.collect_key(key, None, None))):
            results: Any = _compat.results_of(self._trainer)
            self.refuse(self._judge_weights(epoch, judge.collect_key(key, results[key.storage], None)))

    def _judge_weights(self, epoch: Epoch, facts: KeyFacts) -> list[Finding]:
        view = StageView(epoch.record.stage, 1, [KeyView((facts,))])
        found = self._speaking(epoch, judge.judge(view, self._settings), view)
        return [finding for finding in found if finding.code in ("LRG101", "LRG102", "LRG103")]

    def end(self) -> None:
        """Lightning has computed every number of the epoch."""
        self.known.clear()
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
        self._log.add(findings, say=self._exchange.rank == 0)
        if self._exchange.rank == 0:
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
        known = self.known.get(id(record))
        source = known.source if known is not None and known.stamp == record.stamp else None
        if source is None and syncs:
            source = self._meet_for(record, epoch)
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
        self._know(epoch)
        self._confirm()
        return epoch.sources[local.name]
