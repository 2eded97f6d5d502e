"""The epochs of a run: when the ranks meet, what they tell, and what follows for findings and numbers."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any

from lightning_retrieval_guard import _compat
from lightning_retrieval_guard.exchange import Exchange, ExchangeError
from lightning_retrieval_guard.findings import Finding, GuardError, Numbers, Severity
from lightning_retrieval_guard.observe.keys import KeyRecord
from lightning_retrieval_guard.observe.metrics import MetricWatch
from lightning_retrieval_guard.observe.segments import MetricRecord
from lightning_retrieval_guard.observe.stage import StageRecord
from lightning_retrieval_guard.observe.unregistered import tell_unregistered, unregistered_of
from lightning_retrieval_guard.report.log import FindingLog
from lightning_retrieval_guard.retrieval.plan import Plan
from lightning_retrieval_guard.retrieval.values import Outcome
from lightning_retrieval_guard.route import judge
from lightning_retrieval_guard.route.meeting import Meeting, Message, RanksFailedError, Table, Wants, failure_text
from lightning_retrieval_guard.route.sources import LocalSource, SourceFacts, SourceFinder, name_of
from lightning_retrieval_guard.rules import REGISTRY
from lightning_retrieval_guard.rules.view import KeyFacts, KeyView, SourceView, StageView, orders_that_meet
from lightning_retrieval_guard.settings import QueryScope, Settings

END_HOOKS = {"train": "on_train_epoch_end", "test": "on_test_epoch_end", "validate": "on_validation_epoch_end"}

Find = Callable[[list[KeyRecord]], dict[str, LocalSource]]


class Epoch:
    """What this rank has seen in one epoch of one stage, and what the ranks told each other of it."""

    def __init__(self, stage: str, number: int) -> None:
        self.record = StageRecord(stage, number)
        self.keys: list[KeyView] = []
        self.sources: dict[str, SourceView] = {}
        self.local: dict[str, LocalSource] = {}
        self.meetings: list[list[Message]] = []

    @property
    def may_go_on(self) -> bool:
        """Whether anything can be logged since the ranks met; they all know, because they told each other."""
        return not self.meetings or any(message["more"] for message in self.meetings[-1])


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
        save: Callable[[], None],
    ) -> None:
        self.numbers: dict[str, Numbers] = {}
        self._trainer = trainer
        self._module = module
        self._settings = settings
        self._log = log
        self._exchange = exchange
        self._watch = watch
        self._save = save
        self._finder = SourceFinder(trainer, module, watch, exchange, settings)
        self._table = Table(exchange, self._scope, settings.corrects, self._finder.metric)
        self._running: dict[str, Epoch] = {}
        self._count = itertools.count()

    @property
    def _scope(self) -> QueryScope:
        declared = self._settings.query_scope
        return "global" if declared == "auto" and not self._settings.allows("LRG301") else declared

    def current(self) -> Epoch | None:
        """The epoch that runs now, begun where it was not."""
        stage = _compat.stage_name(self._trainer)
        if stage is None or stage == "predict":
            return None
        if stage not in self._running:
            self._running[stage] = Epoch(stage, next(self._count))
            self._watch.start_stage(stage)
        return self._running[stage]

    def clear(self) -> None:
        """Forget the epochs that run, and with them all rows."""
        self._running.clear()

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
        self._running.pop(_compat.stage_name(self._trainer) or "", None)

    def _new_keys(self, epoch: Epoch) -> list[KeyRecord]:
        record = epoch.record
        keys = [key for key in record.keys.values() if key.on_epoch and key.storage not in record.judged]
        record.judged.update(key.storage for key in keys)
        return keys

    def _meet(self, epoch: Epoch, point: str, failure: str | None, find: Find) -> None:
        label = f"{epoch.record.stage}/{epoch.record.dataloader or 0}/{point}"
        message, sources = self._prepare(epoch, failure, find)
        meeting = self._hold(label, message, sources, self._wants)
        failed = {rank: message["failed"] for rank, message in enumerate(meeting.messages) if message["failed"]}
        if failed:
            raise RanksFailedError(failed)
        epoch.meetings.append(meeting.messages)
        epoch.sources.update(meeting.sources)
        new = judge.view_keys(epoch.record.stage, meeting.messages, epoch.sources, self._settings.corrects)
        epoch.keys.extend(new)
        self._act(epoch, new)

    def _prepare(self, epoch: Epoch, failure: str | None, find: Find) -> tuple[Message, dict[str, LocalSource]]:
        """What this rank brings to a meeting; after a failure, also one in here, nothing but that."""
        if failure is None:
            try:
                keys = self._new_keys(epoch)
                sources = find(keys)
                epoch.local.update(sources)
                return self._message(epoch, keys), sources
            except Exception as error:  # the other ranks wait, and must hear of it
                failure = failure_text(error)
        return {"failed": failure, "batches": 0, "repeated": 0, "monitored": [], "more": True, "keys": []}, {}

    def _hold(self, label: str, message: Message, sources: dict[str, LocalSource], wants: Wants) -> Meeting:
        try:
            return self._table.meet(label, message, sources, wants)
        except ExchangeError as error:
            if self._settings.mode == "warn":
                raise
            raise GuardError(why_ranks_missed(error)) from error

    def _message(self, epoch: Epoch, keys: Sequence[KeyRecord]) -> Message:
        results = _compat.results_of(self._trainer) or {}
        padding = epoch.record.padding()
        logged = list(epoch.record.keys.values())
        strays = tell_unregistered(self._trainer, self._module, self._watch, epoch.record.stage, logged)
        return {
            "failed": None,
            "batches": epoch.record.batches,
            "repeated": padding.repeated if padding is not None else 0,
            "monitored": sorted(_compat.monitored_keys(self._trainer)),
            "more": self._has_hook(epoch.record.stage),
            "keys": [
                judge.tell_key(key, results.get(key.storage), name_of(key, epoch.local)).to_message() for key in keys
            ],
            **({"unregistered": strays} if strays else {}),
        }

    def _has_hook(self, stage: str) -> bool:
        """Whether the program has a hook of its own at the end of the epoch, in which it may log."""
        hook = END_HOOKS.get(stage, "on_validation_epoch_end")
        return any(_compat.defines_hook(owner, hook) for owner in (self._module, *self._trainer.callbacks))

    def _wants(self, name: str, plan: Plan, messages: Sequence[Message]) -> bool:
        """Whether the value of a source is worth a collective."""
        if self._settings.corrects or plan.uneven or plan.restarting or plan.left_out:
            return True
        told = [message["sources"][name] for message in messages if name in message["sources"]]
        if not all(SourceFacts.from_message(own).synchronises for own in told):
            return True
        keys = [KeyFacts.from_message(entry) for message in messages for entry in message["keys"]]
        return any(key.source == name and not key.sync_dist and key.kind == "forward" for key in keys)

    # --- what follows -----------------------------------------------------------------------------------------

    def _act(self, epoch: Epoch, new: Sequence[KeyView]) -> None:
        results = _compat.results_of(self._trainer)
        if self._settings.corrects:
            if results is not None:
                self._put_in_order(epoch, results)
                judge.correct(results, new, self._settings, self._module)
        elif self._settings.mode == "strict":
            self.refuse(judge.judge(self._view(epoch), self._settings))
        else:
            early = judge.judge(self._view(epoch), self._settings, before_reduction=True)
            self._log.add(early, say=self._exchange.speaks)

    def _put_in_order(self, epoch: Epoch, results: Any) -> None:
        """Give Lightning's reductions the same order on every rank, or refuse where a key is missing."""
        told = epoch.meetings[-1]
        orders = orders_that_meet(map(judge.order_of_reductions, told), [message["batches"] for message in told])
        if len({tuple(order) for order in orders}) <= 1:
            return
        if len({frozenset(order) for order in orders}) > 1:
            self.refuse(list(REGISTRY["LRG206"].check(self._view(epoch))))
        _compat.sort_results(results)
        for key in epoch.keys:
            key.corrected = key.corrected or any(key.first.storage in order for order in orders)

    def _view(self, epoch: Epoch) -> StageView:
        last = epoch.meetings[-1] if epoch.meetings else []
        return StageView(
            stage=epoch.record.stage,
            world_size=self._exchange.world_size,
            keys=epoch.keys,
            sources=list(epoch.sources.values()),
            orders=[_order(messages) for messages in zip(*epoch.meetings, strict=True)],
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
        lines = [f"{found.path}:{found.line}: {found.text()}" for found in serious]
        try:
            self._save()  # now, because Lightning tells callbacks of no error in forked and spawned processes
        except OSError as error:
            lines.append(f"The report could not be written: {error}")
        raise GuardError("\n".join(lines))

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
        found = judge.judge(view, self._settings)
        return [finding for finding in found if finding.code in ("LRG101", "LRG102", "LRG103")]

    def end(self) -> None:
        """Lightning has computed every number of the epoch."""
        epoch = self._running.pop(_compat.stage_name(self._trainer) or "", None)
        if epoch is None:
            return
        for key, computed in self._computed(epoch):
            key.computed = computed
        view = self._view(epoch)
        self.numbers.update(judge.numbers_of(view))
        found = judge.judge_at_end(view, self._settings)
        if self._settings.mode == "strict" and self._exchange.world_size == 1:
            self.refuse([finding for finding in found if REGISTRY[finding.code].after_others])
        self._log.add(found, say=self._exchange.speaks)
        if self._exchange.speaks:
            self._log.print_table(epoch.record.stage)

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
        known = next((own for own in epoch.local.values() if own.shows([record.segment()])), None)
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
        meeting = self._hold(label, self._message(epoch, []), {local.name: local}, lambda *_: True)
        epoch.local[local.name] = local
        epoch.sources.update(meeting.sources)
        return epoch.sources[local.name]


def _order(messages: Sequence[Message]) -> list[str]:
    """The keys of one rank that Lightning combines, in order over all meetings."""
    return [storage for message in messages for storage in judge.order_of_reductions(message)]


def why_ranks_missed(error: ExchangeError) -> str:
    """The error in words; a metric that some ranks compute alone is a finding with a code of its own."""
    alone = {rank: point.partition("/compute/")[2] for rank, point in error.elsewhere.items() if "/compute/" in point}
    if alone:
        names = ", ".join(sorted(set(alone.values())))
        return (
            f"LRG204 rank-zero-sync: compute() of {names} combines all ranks, but only rank(s)"
            f" {', '.join(map(str, alone))} called it; the others never arrive. Call it on every rank. ({error})"
        )
    return (
        f"RetrievalGuard: {error}. All ranks must come to this point; a rank that skips the epoch, or code that runs"
        " on rank zero alone, keeps the others waiting."
    )
