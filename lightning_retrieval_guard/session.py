"""One run of one trainer on this process: what is patched, when the ranks meet, and what follows from it."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import torch

from lightning_retrieval_guard import _compat
from lightning_retrieval_guard.exchange import Exchange, ExchangeError
from lightning_retrieval_guard.findings import Effect, Finding, GuardError, GuardWarning
from lightning_retrieval_guard.observe.keys import KeyRecord
from lightning_retrieval_guard.observe.log_watch import LogWatch
from lightning_retrieval_guard.observe.metrics import Feeding, MetricRecord, MetricWatch
from lightning_retrieval_guard.observe.patches import Patches
from lightning_retrieval_guard.observe.samples import gives_equal_batches
from lightning_retrieval_guard.observe.site import user_site
from lightning_retrieval_guard.observe.stage import StageRecord
from lightning_retrieval_guard.report.log import FindingLog
from lightning_retrieval_guard.retrieval.combine import Outcome
from lightning_retrieval_guard.route import judge
from lightning_retrieval_guard.route.meeting import Meeting, Message, Table, Wants
from lightning_retrieval_guard.route.sources import LocalSource, SourceFinder, name_of
from lightning_retrieval_guard.rules import REGISTRY
from lightning_retrieval_guard.rules.view import KeyView, SourceView, StageView
from lightning_retrieval_guard.settings import QueryScope, Settings

EPOCH_END_HOOKS = ("on_train_epoch_end", "on_validation_epoch_end", "on_test_epoch_end")


class EpochViews:
    """What the ranks told each other in one epoch of one stage."""

    def __init__(self) -> None:
        self.keys: list[KeyView] = []
        self.sources: dict[str, SourceView] = {}
        self.local: dict[str, LocalSource] = {}
        self.messages: list[list[Message]] = []


class Session:
    """Watches one run, lets the ranks meet, and acts on what comes of it."""

    def __init__(self, trainer: Any, module: Any, settings: Settings, log: FindingLog, exchange: Exchange) -> None:
        self.world_size = exchange.world_size
        self.keys: dict[str, Effect | None] = {}
        self._trainer = trainer
        self._module = module
        self._settings = settings
        self._log = log
        self._exchange = exchange
        self._patches = Patches()
        self._metrics = MetricWatch(self)
        self._finder = SourceFinder(trainer, module, self._metrics, exchange.rank, exchange.world_size)
        self._meeting_table = Table(exchange, self._scope)
        self._stages: dict[str, tuple[StageRecord, EpochViews]] = {}
        self._failure: str | None = None
        self._is_open = False

    @property
    def _scope(self) -> QueryScope:
        declared = self._settings.query_scope
        return "global" if declared == "auto" and not self._settings.allows("LRG301") else declared

    @property
    def corrects(self) -> bool:
        """Whether numbers are replaced."""
        return self._settings.mode == "correct"

    @property
    def speaks(self) -> bool:
        """Whether this process is the one that warns, prints and writes."""
        return self._exchange.rank == 0

    # --- putting on and taking off ----------------------------------------------------------------------------

    def open(self) -> None:
        """Put on the patches, on the process that works."""
        self._is_open = True
        self._metrics.install()
        LogWatch(self._trainer, self._module, self._metrics, self).install(self._patches)
        connector = _compat.logger_connector(self._trainer)
        self._patches.put(connector, "epoch_end_reached", self._before(self._end_batches))
        self._patches.put(connector, "on_epoch_end", self._after(self._end_epoch))
        for hook in EPOCH_END_HOOKS:
            self._patches.put(self._module, hook, self._after(self._end_hooks))
        for loop in _compat.evaluation_loops(self._trainer):
            self._patches.put(loop, "run", self._after(functools.partial(self._join_from_outside, loop)))

    def close(self) -> None:
        """Take off the patches. May be called twice."""
        if self._is_open:
            self._is_open = False
            self._patches.undo()
            self._metrics.uninstall()
            self._stages.clear()
            self._exchange.close()

    def _before(self, action: Callable[[], None]) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
        def wrap(original: Callable[..., Any]) -> Callable[..., Any]:
            @functools.wraps(original)
            def wrapped(*args: Any, **kwargs: Any) -> Any:
                self._at_boundary(action)
                return original(*args, **kwargs)

            return wrapped

        return wrap

    def _after(self, action: Callable[[], None]) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
        def wrap(original: Callable[..., Any]) -> Callable[..., Any]:
            @functools.wraps(original)
            def wrapped(*args: Any, **kwargs: Any) -> Any:
                result = original(*args, **kwargs)
                self._at_boundary(action)
                return result

            return wrapped

        return wrap

    # --- stepping aside ---------------------------------------------------------------------------------------

    def protect(self, action: Callable[[], None]) -> None:
        """Run a part of the guard; its failure must not bring the run down."""
        if self._is_open and self._failure is None:
            self._at_boundary(action)

    def _at_boundary(self, action: Callable[[], None]) -> None:
        """The same, also after a failure, because the other ranks must hear of it."""
        if not self._is_open:
            return
        try:
            action()
        except (GuardError, GuardWarning):
            raise
        except Exception as error:
            self._fail(error)

    def _fail(self, error: Exception) -> None:
        reason = f"{type(error).__name__}: {error}"
        if self._settings.mode == "strict":
            raise GuardError(f"LRG901 guard-disabled: the guard failed: {reason}") from error
        if self.world_size == 1 or isinstance(error, ExchangeError) or self._failure is not None:
            self._step_aside(reason, [self._exchange.rank], say=True)
        else:
            self._failure = reason  # the other ranks hear of it where they meet

    def _step_aside(self, reason: str, ranks: list[int], say: bool) -> None:
        self.close()
        rule, site = REGISTRY["LRG901"], user_site()
        finding = Finding(
            code=rule.code,
            rule=rule.slug,
            severity=rule.severity,
            key="",
            stage=_compat.stage_name(self._trainer) or "",
            hook=_compat.current_hook(self._module) or "",
            path=site.path,
            line=site.line,
            message=f"the guard failed and stepped aside ({reason}). Numbers from here on are not checked.",
            fix="Please report it with this message.",
            ranks=tuple(ranks),
        )
        self._log.add([finding] if self._settings.allows(rule.code) else [], say=say)

    # --- what the watches ask and tell ------------------------------------------------------------------------

    def stage(self) -> StageRecord | None:
        """The stage that runs now."""
        name = _compat.stage_name(self._trainer)
        if name is None or name == "predict":
            return None
        if name not in self._stages:
            self._stages[name] = (StageRecord(name), EpochViews())
            self._metrics.start_stage(name)
        return self._stages[name][0]

    def hook(self) -> str | None:
        """The Lightning hook that runs now."""
        return _compat.current_hook(self._module)

    def feeding(self) -> Feeding | None:
        """What feeds metrics now."""
        stage = self.stage()
        return None if stage is None else stage.feeding

    def start_batch(self, batch: Any, index: int, dataloader: int | None) -> None:
        """A batch begins."""
        stage = self.stage()
        if stage is not None:
            stage.start_batch(self._trainer, batch, index, dataloader, self._settings.batch_size_fn)

    def logged(self, key: KeyRecord) -> None:
        """A log call was taken in; strict mode raises where every rank sees the same wrong weight."""
        if self._settings.mode != "strict" or not key.weights.varies or not key.on_epoch:
            return
        loader = _compat.loader_at(self._trainer, key.dataloader)
        if self.world_size > 1 and not gives_equal_batches(loader):
            return
        stage = self.stage()
        assert stage is not None
        results: Any = _compat.results_of(self._trainer)
        result = results[key.storage]
        view = KeyView((judge.tell_key(key, result, None),) * self.world_size)
        found = judge.judge(StageView(stage.stage, self.world_size, [view]), self._settings)
        self._raise([finding for finding in found if finding.code.startswith("LRG10") and finding.code != "LRG104"])

    def compute(self, record: MetricRecord, plain: Callable[[], Any]) -> tuple[Any, bool]:
        """Compute a metric: in a step on this rank alone, at the end of the epoch over all ranks."""
        metric, stage = record.metric(), self.stage()
        syncs = self.world_size > 1 and _compat.syncs_on_compute(metric)
        if metric is None or stage is None or not record.is_rows or not self.corrects:
            record.synced_in_steps += syncs and stage is not None and stage.in_step
            return plain(), syncs
        if stage.in_step:
            if self.world_size > 1:
                _compat.forget_computed(metric)
                with _compat.WithoutSync(metric):
                    return plain(), False
            return plain(), False
        outcome: Outcome | None = None

        def look_up() -> None:
            nonlocal outcome
            outcome = self._outcome_of(record, stage, syncs)

        self.protect(look_up)
        return (plain(), syncs) if outcome is None else (self._take(outcome, metric), True)

    def forward(self, record: MetricRecord, plain: Callable[[], Any]) -> tuple[Any, bool]:
        """Run ``forward``, which in correct mode stays on this rank for retrieval metrics."""
        metric, stage = record.metric(), self.stage()
        syncs = self.world_size > 1 and _compat.syncs_in_forward(metric)
        if not syncs or not record.is_rows or not self.corrects or stage is None:
            record.synced_in_steps += syncs and stage is not None and stage.in_step
            return plain(), syncs
        with _compat.WithoutSync(metric):
            return plain(), False

    # --- the ranks meet ---------------------------------------------------------------------------------------

    def _end_batches(self) -> None:
        """All batches of a dataloader are over, and Lightning has not combined anything yet."""
        stage = self.stage()
        if stage is None or not stage.fresh:
            return
        stage.end_batches()
        self._meet(stage, "batches")

    def _end_hooks(self) -> None:
        """The module's epoch-end hook is over: everything of the epoch is logged."""
        stage = self.stage()
        if stage is not None:
            self._meet(stage, "epoch")

    def _join_from_outside(self, loop: Any) -> None:
        """A rank whose loader is empty skips the whole loop; the others wait for it."""
        if self.world_size > 1 and _compat.skipped_for_lack_of_batches(loop):
            self._end_batches()
            self._end_hooks()
            self._stages.pop(_compat.stage_name(self._trainer) or "", None)

    def _meet(self, stage: StageRecord, point: str) -> None:
        views = self._stages[stage.stage][1]
        keys = [key for key in stage.keys.values() if key.on_epoch and key.storage not in stage.judged]
        stage.judged.update(key.storage for key in keys)
        local: dict[str, LocalSource] = {}
        if self._failure is None and point == "batches":
            local = self._finder.in_stage(stage, keys)
        elif self._failure is None:
            local = self._finder.behind_keys(stage, keys, views.local)
        views.local.update(local)
        label = f"{stage.stage}/{stage.dataloader or 0}/{point}"
        meeting = self._hold(label, self._message(stage, keys, views.local), local, self._wants)
        failed = {rank: other["failed"] for rank, other in enumerate(meeting.messages) if other["failed"]}
        if failed:
            self._step_aside("; ".join(failed.values()), list(failed), say=self.speaks)
            return
        views.sources.update(meeting.sources)
        views.messages.append(meeting.messages)
        replaced = self.corrects and self.world_size > 1
        new = judge.view_keys(meeting.messages, views.sources, replaced)
        views.keys.extend(new)
        self._act(stage, views, new)

    def _hold(self, label: str, message: Message, sources: dict[str, LocalSource], wants: Wants) -> Meeting:
        try:
            return self._meeting_table.meet(label, message, sources, wants)
        except ExchangeError as error:
            if self._settings.mode == "warn":
                raise
            raise GuardError(
                f"RetrievalGuard: {error}. All ranks must come to this point; a rank whose loader is empty, or code"
                " that runs on rank zero alone, keeps the others waiting."
            ) from error

    def _message(self, stage: StageRecord, keys: list[KeyRecord], sources: dict[str, LocalSource]) -> Message:
        results = _compat.results_of(self._trainer) or {}
        padding = stage.padding()
        return {
            "failed": self._failure,
            "batches": stage.batches,
            "repeated": padding.repeated if padding is not None else 0,
            "monitored": sorted(_compat.monitored_keys(self._trainer)),
            "keys": [judge.tell_key(key, results.get(key.storage), name_of(key, sources)).to_message() for key in keys],
        }

    def _wants(self, name: str, plan: Any, messages: Any) -> bool:
        """Whether the value of a source is worth a collective."""
        if self.corrects:
            return True
        shown_alone = any(
            entry["source"] == name and not entry["sync_dist"] and entry["kind"] != "metric"
            for message in messages
            for entry in message["keys"]
        )
        alone = shown_alone or not all(facts.synchronises for facts in plan.facts if facts.rows)
        return bool(alone or plan.uneven or plan.restarting or plan.left_out)

    def _act(self, stage: StageRecord, views: EpochViews, new: list[KeyView]) -> None:
        results = _compat.results_of(self._trainer)
        if self.corrects and results is not None:
            self._put_in_order(stage, views, results)
            judge.correct(results, new, self._settings, self._module)
        elif self._settings.mode == "strict":
            self._raise(judge.judge(self._view(stage, views), self._settings))
        else:
            early = judge.judge(self._view(stage, views), self._settings, before_reduction=True)
            self._log.add(early, say=self.speaks)

    def _put_in_order(self, stage: StageRecord, views: EpochViews, results: Any) -> None:
        orders = [judge.order_of_reductions(message) for message in views.messages[-1]]
        if len({tuple(order) for order in orders if order}) <= 1:
            return
        missing = [finding for finding in REGISTRY["LRG206"].check(self._view(stage, views)) if finding.effect is None]
        if missing and len({frozenset(order) for order in orders if order}) > 1:
            self._raise(missing)
        _compat.sort_results(results)

    def _view(self, stage: StageRecord, views: EpochViews) -> StageView:
        last = views.messages[-1] if views.messages else []
        return StageView(
            stage=stage.stage,
            world_size=self.world_size,
            keys=views.keys,
            sources=list(views.sources.values()),
            orders=[judge.order_of_reductions(message) for message in last],
            batches=[message["batches"] for message in last],
            repeated=min((message["repeated"] for message in last), default=0),
            declared_scope=self._settings.query_scope,
            monitored=frozenset(key for message in last for key in message["monitored"]),
        )

    def _raise(self, findings: list[Finding]) -> None:
        serious = judge.serious(findings)
        if serious:
            self._log.add(serious, say=False)
            raise GuardError("\n".join(f"{found.path}:{found.line}: {found.text()}" for found in serious))

    # --- values -----------------------------------------------------------------------------------------------

    def _outcome_of(self, record: MetricRecord, stage: StageRecord, syncs: bool) -> Outcome | None:
        """The value over all ranks; ``None`` where the program's own value stands."""
        views = self._stages[stage.stage][1]
        known = next((own for own in views.local.values() if own.shows([record.segment()])), None)
        source = views.sources.get(known.name if known is not None else self._finder.name(record))
        if source is None or (known is None and _compat.row_states(record.metric())[0]):
            source = self._meet_for(record, stage, views) if syncs else None
        if source is None or (self.world_size == 1 and not source.plan.restarting):
            return None
        return source.outcome if source.plan.has_rows else None

    def _meet_for(self, record: MetricRecord, stage: StageRecord, views: EpochViews) -> SourceView | None:
        """A metric that was fed after the batches: all ranks compute it now, as they would without the guard."""
        local = self._finder.of_metric(record, stage)
        label = f"{stage.stage}/compute/{local.name}"
        message = self._message(stage, [], {})
        meeting = self._hold(label, message, {local.name: local}, lambda *_: True)
        views.local[local.name] = local
        views.sources.update(meeting.sources)
        return views.sources[local.name]

    def _take(self, outcome: Outcome, metric: Any) -> Any:
        if outcome.error is not None:
            raise outcome.error
        value = outcome.value
        if isinstance(value, float):
            preds = _compat.row_states(metric)[1]
            dtype = preds[-1].dtype if preds else _compat.default_dtype()
            return torch.tensor(value, dtype=dtype, device=metric.device)
        return value

    # --- the end of an epoch ----------------------------------------------------------------------------------

    def _end_epoch(self) -> None:
        """Lightning has computed every number of the epoch."""
        name = _compat.stage_name(self._trainer)
        stage, views = self._stages.pop(name or "", (None, None))
        if stage is None or views is None or self._failure is not None:
            return
        results = _compat.results_of(self._trainer) or {}
        for key in views.keys if not self.corrects else ():
            result = results.get(key.first.storage)
            computed = _compat.result_computed(result) if result is not None else None
            key.computed = None if computed is None else float(computed)
        findings = judge.judge(self._view(stage, views), self._settings)
        self.keys.update(judge.numbers_of(views.keys))
        self._log.add(findings, say=self.speaks)
        if self.speaks:
            self._log.print_table(stage.stage)
