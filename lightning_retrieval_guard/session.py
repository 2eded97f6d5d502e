"""One run of one trainer on this process: what is patched, and what the patches set off."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor

from lightning_retrieval_guard import _compat
from lightning_retrieval_guard.exchange import Exchange, ExchangeError
from lightning_retrieval_guard.findings import Finding, GuardError, GuardWarning, Numbers
from lightning_retrieval_guard.observe.feeding import Feeding
from lightning_retrieval_guard.observe.keys import KeyRecord
from lightning_retrieval_guard.observe.log_watch import LogWatch
from lightning_retrieval_guard.observe.metrics import MetricWatch
from lightning_retrieval_guard.observe.patches import Patches
from lightning_retrieval_guard.observe.samples import gives_equal_batches
from lightning_retrieval_guard.observe.segments import MetricRecord
from lightning_retrieval_guard.observe.site import user_site
from lightning_retrieval_guard.observe.stage import StageRecord
from lightning_retrieval_guard.observe.suppressions import Suppressions
from lightning_retrieval_guard.observe.unregistered import bring
from lightning_retrieval_guard.report.columns import printable
from lightning_retrieval_guard.report.contents import StageCounts
from lightning_retrieval_guard.report.log import FindingLog
from lightning_retrieval_guard.retrieval.combine import score_alone
from lightning_retrieval_guard.retrieval.recent import RecentRanking
from lightning_retrieval_guard.retrieval.values import Outcome
from lightning_retrieval_guard.route.epochs import Epochs
from lightning_retrieval_guard.route.meeting import RanksFailedError, failure_text
from lightning_retrieval_guard.route.quiet import Quiet
from lightning_retrieval_guard.route.sources import may_act
from lightning_retrieval_guard.route.telling import END_HOOKS, why_ranks_missed
from lightning_retrieval_guard.rules import REGISTRY
from lightning_retrieval_guard.settings import Settings

Wrap = Callable[[Callable[..., Any]], Callable[..., Any]]
Plain = Callable[[], Any]
Choose = Callable[[MetricRecord, Plain], tuple[Plain, bool]]


class Session:
    """Watches one run, and acts where the ranks meet."""

    def __init__(
        self,
        trainer: Any,
        module: Any,
        settings: Settings,
        log: FindingLog,
        suppressions: Suppressions,
        save: Callable[[], None],
    ) -> None:
        self.world_size = 1
        self.suppressions = suppressions
        self._trainer = trainer
        self._module = module
        self._settings = settings
        self._log = log
        self._quiet = Quiet(suppressions, settings)
        self._save = save
        self._exchange = Exchange()
        self._patches = Patches()
        self._metrics = MetricWatch(self)
        self._epochs = self._make_epochs()
        self._recent = RecentRanking()
        self._failure: str | None = None
        self._is_open = False

    @property
    def speaks(self) -> bool:
        """Whether this process is the one that warns, prints and writes."""
        return self._exchange.speaks

    @property
    def numbers(self) -> dict[str, Numbers]:
        """Logged number and reference of every key so far, each where it is known."""
        return self._epochs.numbers

    @property
    def counts(self) -> dict[str, StageCounts]:
        """What each rank saw in the last epoch of every stage so far."""
        return self._epochs.counts

    # --- putting on and taking off ----------------------------------------------------------------------------

    def _make_epochs(self) -> Epochs:
        return Epochs(
            self._trainer,
            self._module,
            self._settings,
            self._log,
            self._exchange,
            self._metrics,
            self._quiet,
            self._save,
        )

    def open(self, connect: Callable[[], Exchange]) -> None:
        """Connect the ranks and put on the patches, on the process that works."""
        self._is_open = True
        try:
            self._connect(connect)
            self._install()
        except GuardError:
            raise
        except Exception as error:  # the same on every rank, so none has to wait for the others to hear of it
            self._give_up(failure_text(error), [self._exchange.rank], say=self.speaks)

    def _install(self) -> None:
        self._metrics.install()
        LogWatch(self._trainer, self._module, self._metrics, self).install(self._patches)
        connector = _compat.logger_connector(self._trainer)
        self._patches.put(connector, "epoch_end_reached", self._before(self._end_batches))
        self._patches.put(connector, "on_epoch_end", self._after(self._end_epoch))
        for hook in END_HOOKS.values():
            self._patches.put(self._module, hook, self._after(self._end_hooks))
        for loop in _compat.evaluation_loops(self._trainer):
            self._patches.put(loop, "run", self._after(functools.partial(self._end_loop, loop)))

    def _connect(self, connect: Callable[[], Exchange]) -> None:
        self._exchange = connect()
        self.world_size = self._exchange.world_size
        self._epochs = self._make_epochs()

    def close(self) -> None:
        """Take off the patches. May be called twice."""
        if self._is_open:
            self._is_open = False
            self._patches.undo()
            self._metrics.uninstall()
            self._epochs.clear()
            self._recent.forget()
            self._exchange.close()
        if self._failure is not None:  # it came after the last meeting
            self._step_aside(self._failure, [self._exchange.rank], say=True)

    def _before(self, action: Callable[[], None]) -> Wrap:
        return functools.partial(self._wrapped, action, None)

    def _after(self, action: Callable[[], None]) -> Wrap:
        return functools.partial(self._wrapped, None, action)

    def _wrapped(
        self, before: Callable[[], None] | None, after: Callable[[], None] | None, original: Callable[..., Any]
    ) -> Callable[..., Any]:
        @functools.wraps(original)
        def wrapped(*args: Any, **kwargs: Any) -> Any:
            self._at_boundary(before)
            result = original(*args, **kwargs)
            self._at_boundary(after)
            return result

        return wrapped

    # --- stepping aside ---------------------------------------------------------------------------------------

    def protect(self, action: Callable[[], None]) -> None:
        """Run a part of the guard; its failure must not bring the run down."""
        if self._failure is None:
            self._at_boundary(action)

    def _at_boundary(self, action: Callable[[], None] | None) -> None:
        """The same, also after a failure, because the other ranks must hear of it."""
        if action is None or not self._is_open:
            return
        try:
            action()
        except (GuardError, GuardWarning):
            raise
        except RanksFailedError as error:
            self._give_up(str(error), error.ranks, say=self.speaks)
        except ExchangeError as error:
            self._give_up(why_ranks_missed(error), [self._exchange.rank], say=True)
        except Exception as error:
            if self.world_size == 1:
                self._give_up(failure_text(error), [self._exchange.rank], say=True)
            else:
                self._failure = failure_text(error)  # the other ranks hear of it where they meet

    def _give_up(self, reason: str, ranks: list[int], say: bool) -> None:
        if self._settings.mode == "strict":
            text = f"LRG901 guard-disabled: the guard failed on rank(s) {_joined(ranks)}: {reason}"
            raise GuardError(printable(text))
        self._step_aside(reason, ranks, say)

    def _step_aside(self, reason: str, ranks: list[int], say: bool) -> None:
        self._failure = None
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

    # --- the moments of an epoch ------------------------------------------------------------------------------

    def _end_batches(self) -> None:
        self._epochs.end_batches(self._failure)

    def _end_hooks(self) -> None:
        self._epochs.end_hooks(self._failure)

    def _end_loop(self, loop: Any) -> None:
        if self.world_size > 1 and _compat.skipped_for_lack_of_batches(loop):
            self._epochs.join_from_outside(self._failure)

    def _end_epoch(self) -> None:
        if self._failure is None:
            self._epochs.end()

    def end_run(self) -> None:
        """The run is over without an exception: tell of suppressions that were of no use."""
        findings = list(self._quiet.unused(self._exchange.rank, self.world_size))
        if findings:
            self._log.add(findings, say=self.speaks)
            self._save()
            if self.speaks:
                self._log.print_table("the run")

    def start_batch(self, batch: Any, index: int, dataloader: int | None) -> None:
        """A batch begins."""
        stage = self.stage()
        self._metrics.start_batch()
        self._recent.forget()
        if stage is not None:
            stage.start_batch(self._trainer, batch, index, dataloader, self._settings.batch_size_fn)

    # --- what the watches ask and tell ------------------------------------------------------------------------

    @property
    def routes(self) -> bool:
        """Whether the guard supplies the values of retrieval metrics, and may keep their rows as it likes."""
        return self._settings.corrects and self._failure is None

    def may_drop(self, record: MetricRecord) -> bool:
        """Whether a metric may be made to forget what it holds of earlier epochs."""
        return self.routes and may_act("LRG401", record, self._settings)

    def stage(self) -> StageRecord | None:
        """The stage that runs now."""
        epoch = self._epochs.current()
        return None if epoch is None else epoch.record

    def hook(self) -> str | None:
        """The Lightning hook that runs now."""
        return _compat.current_hook(self._module)

    def feeding(self) -> Feeding | None:
        """What feeds metrics now."""
        stage = self.stage()
        return None if stage is None else stage.feeding

    @property
    def is_only_rank(self) -> bool:
        """Whether there is no other rank."""
        return self.world_size == 1

    def bring(self, record: MetricRecord, inputs: Iterable[Tensor]) -> None:
        """Before an update with ``inputs``: a metric that is no part of the module comes to where the module is."""
        if self.stage() is not None:
            bring(record, self._module, inputs)

    def is_final(self, metric: Any, alone: bool) -> bool:
        """Whether no other rank and no other update can add to the queries of an update.

        Args:
            metric: The metric.
            alone: Whether the update is the only one of its metric life.
        """
        if self._settings.query_scope == "batch":
            return True
        return alone and (self.world_size == 1 or not _compat.syncs_on_compute(metric))

    def logged(self, key: KeyRecord) -> None:
        """A log call was taken in; strict mode raises where every rank sees the same wrong weight."""
        if self._settings.mode != "strict" or not key.weights.varies or not key.on_epoch:
            return
        loader = _compat.loader_at(self._trainer, key.dataloader)
        epoch = self._epochs.current()
        if epoch is not None and (self.world_size == 1 or gives_equal_batches(loader)):
            self._epochs.refuse_weights(key, epoch)

    def compute(self, record: MetricRecord, plain: Plain) -> tuple[Any, bool]:
        """Compute a metric: in a step on this rank alone, at the end of the epoch over all ranks."""
        return self._run(self._way_to_compute, record, plain)

    def forward(self, record: MetricRecord, plain: Plain) -> tuple[Any, bool]:
        """Run ``forward``, which in correct mode stays on this rank for retrieval metrics."""
        return self._run(self._way_to_forward, record, plain)

    def _run(self, choose: Choose, record: MetricRecord, plain: Plain) -> tuple[Any, bool]:
        """Choose a way under protection and go it without, because what it raises is the program's own."""
        way, synced = plain, False

        def choose_way() -> None:
            nonlocal way, synced
            way, synced = choose(record, plain)

        self.protect(choose_way)
        metric = record.metric()
        if self._failure is not None and self.world_size > 1 and record.is_rows and self._settings.corrects:
            way = functools.partial(self._alone, metric, plain)  # the other ranks would not come
        return way(), synced

    def _way_to_compute(self, record: MetricRecord, plain: Plain) -> tuple[Plain, bool]:
        metric, epoch = record.metric(), self._epochs.current()
        syncs = self.world_size > 1 and _compat.syncs_on_compute(metric)
        if metric is None or epoch is None:
            return plain, syncs
        if not record.is_rows or not self._settings.corrects:
            others = functools.partial(self._compute_with_others, record, epoch.record, plain)
            return (others if syncs else plain), syncs
        if epoch.record.in_step:
            return functools.partial(self._compute_alone, metric, plain), False
        outcome = self._epochs.outcome(record, epoch, syncs)
        return (plain, syncs) if outcome is None else (functools.partial(_take, outcome, metric), True)

    def _way_to_forward(self, record: MetricRecord, plain: Plain) -> tuple[Plain, bool]:
        metric, stage = record.metric(), self.stage()
        syncs = self.world_size > 1 and _compat.syncs_in_forward(metric)
        if not syncs or stage is None:
            return plain, syncs
        if record.is_rows and self._settings.corrects:
            return functools.partial(self._alone, metric, plain), False
        record.synced_in_steps += stage.in_step
        return plain, True

    @staticmethod
    def _alone(metric: Any, plain: Plain) -> Any:
        _compat.forget_computed(metric)
        with _compat.WithoutSync(metric):
            return plain()

    def _compute_alone(self, metric: Any, plain: Plain) -> Any:
        """The value of this rank's rows, which the guard scores faster than torchmetrics where both are the same."""
        outcome: Outcome | None = None

        def score() -> None:
            nonlocal outcome
            outcome = score_alone(metric, self._recent)

        self.protect(score)
        if outcome is None:
            return self._alone(metric, plain) if self.world_size > 1 else plain()
        return _take(outcome, metric)

    def score_in_forward(self, metric: Any, plain: Plain) -> Any:
        """The value of one batch, as ``forward`` asks for it."""
        return self._compute_alone(metric, plain) if self.routes and self.stage() is not None else plain()

    def _compute_with_others(self, record: MetricRecord, stage: StageRecord, plain: Plain) -> Any:
        """The metric combines ranks by itself; outside of steps, say so to whoever will miss this rank."""
        if stage.in_step:
            record.synced_in_steps += 1
            return plain()

        def announce() -> None:
            site = user_site()
            name = self._epochs.name(record)
            self._exchange.announce(f"{stage.stage}/compute/{name} at {site.path}:{site.line}")

        self.protect(announce)
        value = plain()
        self.protect(lambda: self._exchange.announce(""))
        return value


def _joined(ranks: list[int]) -> str:
    return ", ".join(map(str, ranks))


def _take(outcome: Outcome, metric: Any) -> Any:
    """The value as the metric itself would return it."""
    if outcome.error is not None:
        raise outcome.error
    if not isinstance(outcome.value, float):
        return tuple(part.to(metric.device) for part in outcome.value) if outcome.value is not None else None
    preds = _compat.row_states(metric)[1]
    dtype = preds[-1].dtype if preds else _compat.default_dtype()
    return torch.tensor(outcome.value, dtype=dtype, device=metric.device)
