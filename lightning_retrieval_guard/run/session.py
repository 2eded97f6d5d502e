"""One run of one trainer on this process: what is patched, and what the patches set off."""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable, Iterable, Sequence
from datetime import timedelta
from typing import Any

from torch import Tensor

from lightning_retrieval_guard import _compat
from lightning_retrieval_guard._compat import GuardError
from lightning_retrieval_guard.distributed.exchange import Exchange, ExchangeError, RanksFailedError
from lightning_retrieval_guard.findings import GuardWarning
from lightning_retrieval_guard.report.contents import StageCounts
from lightning_retrieval_guard.report.text import printable
from lightning_retrieval_guard.rules.lrg901_guard_disabled import GuardDisabled
from lightning_retrieval_guard.run.collect import END_HOOKS, why_ranks_missed
from lightning_retrieval_guard.run.compute import ComputeDispatcher, Plain
from lightning_retrieval_guard.run.context import RunContext
from lightning_retrieval_guard.run.epochs import Epochs
from lightning_retrieval_guard.run.failure import Failure, failure_text
from lightning_retrieval_guard.run.suppression_filter import may_correct
from lightning_retrieval_guard.watch.batches import gives_equal_batches
from lightning_retrieval_guard.watch.functionals import watch_functionals
from lightning_retrieval_guard.watch.keys import KeyRecord
from lightning_retrieval_guard.watch.log_calls import LogWatch
from lightning_retrieval_guard.watch.metric_lives import MetricRecord
from lightning_retrieval_guard.watch.metrics import MetricWatch
from lightning_retrieval_guard.watch.patches import Patches
from lightning_retrieval_guard.watch.stage import StageRecord
from lightning_retrieval_guard.watch.step_sync import digest, sync_free_sites
from lightning_retrieval_guard.watch.unregistered import bring
from lightning_retrieval_guard.watch.update_context import UpdateContext

Wrap = Callable[[Callable[..., Any]], Callable[..., Any]]
Choose = Callable[[MetricRecord, Plain], tuple[Plain, bool]]


class Session:
    """Watches one run, and acts where the ranks meet."""

    def __init__(self, run: RunContext) -> None:
        self.in_step = False
        self.suppressions = run.suppressions
        self._run = run
        self._patches = Patches()
        self._metrics = MetricWatch(self, run.settings.max_held_mb)
        self._epochs = Epochs(run, self._metrics)
        self._ways = self._make_ways()
        self._failure: Failure | None = None
        self._is_open = False

    @property
    def world_size(self) -> int:
        """The number of ranks."""
        return self._run.world_size

    @property
    def is_rank_zero(self) -> bool:
        """Whether this process is the one that warns, prints and writes."""
        return self._run.is_rank_zero

    @property
    def counts(self) -> dict[str, StageCounts]:
        """What each rank saw in the last epoch of every stage so far."""
        return self._epochs.counts

    # --- putting on and taking off ----------------------------------------------------------------------------

    def _make_ways(self, sync_free: frozenset[tuple[str, int]] = frozenset()) -> ComputeDispatcher:
        return ComputeDispatcher(self._epochs, self._run.exchange, self._run.settings, self.protect, sync_free)

    def _find_sync_free(self) -> frozenset[tuple[str, int]]:
        """Where a ``compute()`` in a step may leave its collective out, if all ranks do."""
        callbacks = _compat.callbacks_of(self._run.trainer)
        # a number that is left to the program needs it
        may_ignore = self._run.filter.may_ignore((self._run.module, *callbacks))
        if not self._run.settings.corrects or self.world_size == 1 or may_ignore:
            return frozenset()
        return sync_free_sites(self._run.module, callbacks)

    def open(self, connect: Callable[[], Exchange], prepare: Callable[[], timedelta]) -> None:
        """Put on the patches, on the process that works, and connect the ranks, if all are ready.

        Args:
            connect: Makes the exchange, without a word to other ranks.
            prepare: Checks what the user gave, and says how long ranks wait for each other.
        """
        self._is_open = True
        timeout, trouble, refused = _compat.DEFAULT_TIMEOUT, None, None
        sync_free: frozenset[tuple[str, int]] = frozenset()
        try:
            self._connect(connect)
            self.suppressions.start_over()
            try:
                timeout = prepare()
            except (GuardError, ValueError) as error:
                refused = error
                raise
            self._install()
            sync_free = self._find_sync_free()
        except Exception as error:  # the other ranks hear of it before anything is changed
            trouble = failure_text(error)
        try:
            if self._run.exchange.join(timeout, trouble, digest(sorted(sync_free))):
                self._ways = self._make_ways(sync_free)
        except Exception as error:
            if refused is not None:
                self._take_off()
                raise refused from None
            self._failure = self._failure_of(error)
            self._give_up()

    def _install(self) -> None:
        self._metrics.install()
        LogWatch(self._run.trainer, self._run.module, self._metrics, self).install(self._patches)
        watch_functionals(self, self._patches)
        connector = _compat.logger_connector(self._run.trainer)
        self._patches.put(connector, "epoch_end_reached", self._before(self._epochs.end_batches))
        self._patches.put(connector, "on_epoch_end", self._after(self._epochs.end, meets=False))
        for hook in END_HOOKS.values():
            self._patches.put(self._run.module, hook, self._after(self._epochs.end_hooks))
        for loop in _compat.evaluation_loops(self._run.trainer):
            self._patches.put(loop, "run", self._after(functools.partial(self._end_loop, loop)))

    def _connect(self, connect: Callable[[], Exchange]) -> None:
        self._run.exchange = connect()
        self._epochs = Epochs(self._run, self._metrics)
        self._ways = self._make_ways()

    def close(self) -> None:
        """Take off the patches. May be called twice."""
        if self._is_open:
            self._take_off()
        if self._failure is not None:  # it came after the last meeting
            self._step_aside(self._failure, say=True)

    def _take_off(self) -> None:
        self._is_open = False
        parts = (
            self.suppressions.start_over,
            self._patches.undo,
            self._metrics.uninstall,
            self._epochs.clear,
            self._run.exchange.close,
        )
        for part in parts:
            self._take_off_part(part)

    def _take_off_part(self, part: Callable[[], None]) -> None:
        try:
            part()
        except Exception as error:  # the rest must come off all the same
            self._failure = self._failure or self._failure_of(error)

    def _before(self, action: Callable[[], None]) -> Wrap:
        return functools.partial(self._wrapped, action, None, True)

    def _after(self, action: Callable[[], None], meets: bool = True) -> Wrap:
        return functools.partial(self._wrapped, None, action, meets)

    def _wrapped(
        self,
        before: Callable[[], None] | None,
        after: Callable[[], None] | None,
        meets: bool,
        original: Callable[..., Any],
    ) -> Callable[..., Any]:
        act = self._meet if meets else self.protect

        @functools.wraps(original)
        def wrapped(*args: Any, **kwargs: Any) -> Any:
            if before is not None:
                act(before)
            result = original(*args, **kwargs)
            if after is not None:
                act(after)
            return result

        return wrapped

    # --- stepping aside ---------------------------------------------------------------------------------------

    def protect(self, action: Callable[[], None]) -> None:
        """Run a part of the guard; its failure must not bring the run down."""
        if self._failure is not None or not self._is_open:
            return
        try:
            action()
        except (GuardError, GuardWarning):
            raise
        except Exception as error:
            self._failure = self._failure_of(error)
            if self.world_size == 1:
                self._give_up()

    def _meet(self, action: Callable[[], None]) -> None:
        """Run a part where the ranks meet, and step aside where any of them has failed."""
        self.in_step = False
        self.protect(action)
        if self._failure is not None and self._is_open:
            self._give_up()

    def _failure_of(self, error: Exception) -> Failure:
        """What to say of a failure; the other ranks hear of one here where they meet."""
        if isinstance(error, RanksFailedError):
            return Failure(str(error), error.ranks, self._run.exchange.rank == 0)
        if isinstance(error, ExchangeError):
            return Failure(why_ranks_missed(error), [self._run.exchange.rank], say=True, is_own=False)
        reason = failure_text(error)
        try:
            self._run.exchange.leave(reason, failed=True)
        except Exception as another:  # this is where failures end
            reason = f"{reason}; {failure_text(another)}"
        return Failure(reason, [self._run.exchange.rank], self._run.exchange.rank == 0)

    def _give_up(self) -> None:
        assert self._failure is not None
        if self._run.settings.mode != "strict":
            self._step_aside(self._failure, self._failure.say)
            return
        failure, self._failure = self._failure, None
        self._keep(failure, say=False)
        ranks = _joined(failure.ranks)
        spec = GuardDisabled.spec
        raise GuardError(printable(f"{spec.code} {spec.slug}: the guard failed on rank(s) {ranks}: {failure.reason}"))

    def _step_aside(self, failure: Failure, say: bool) -> None:
        if self._is_open:
            self._take_off()
        self._failure = None
        self._keep(failure, say)

    def _keep(self, failure: Failure, say: bool) -> None:
        """Add a failure to what was found, and write all of that, because no later moment may."""
        try:
            finding = failure.finding(self._run.trainer, self._run.module)
            if self._run.settings.allows(finding.code):
                self._run.log.add([finding], say=say)
        except GuardWarning:
            raise
        except Exception as error:  # it may be why the guard steps aside
            print(f"RetrievalGuard stepped aside: {failure.reason}; {failure_text(error)}", file=sys.stderr)
        finally:
            self._save_what_is_known()

    def _save_what_is_known(self) -> None:
        try:
            self._run.save()
        except Exception as error:  # it may be why the guard steps aside
            print(f"RetrievalGuard: the report could not be written: {failure_text(error)}", file=sys.stderr)

    def leave(self, reason: BaseException) -> None:
        """The run ends on this rank: let no other wait for it, unless the others brought that about."""
        if not isinstance(reason.__cause__, ExchangeError):
            self.protect(lambda: self._run.exchange.leave(failure_text(reason), failed=False))

    # --- the moments of an epoch ------------------------------------------------------------------------------

    def _end_loop(self, loop: Any) -> None:
        if self.world_size > 1 and _compat.skipped_for_lack_of_batches(loop):
            self._epochs.join_from_outside()

    def end_run(self) -> None:
        """The run is over without an exception: tell of suppressions that were of no use."""
        findings = list(self._run.filter.unused(self._run.exchange.rank, self.world_size))
        if findings:
            self._run.log.add(findings, say=self.is_rank_zero)
            self._run.save()

    def start_batch(self, batch: Any, index: int, dataloader: int | None) -> None:
        """A batch begins."""
        stage = self.stage()
        self._metrics.start_batch()
        if stage is not None:
            stage.start_batch(self._run.trainer, batch, index, dataloader, self._run.settings.batch_size_fn)

    # --- what the watches ask and tell ------------------------------------------------------------------------

    @property
    def routes(self) -> bool:
        """Whether the guard supplies the values of retrieval metrics."""
        return self._run.settings.corrects and self._failure is None

    def may_drop(self, record: MetricRecord) -> bool:
        """Whether a metric may be made to forget what it holds of earlier epochs."""
        suppressed = (*record.suppressed, *record.suppressed_where_shown)
        return self.routes and may_correct("stale_state", suppressed, self._run.settings)

    def stage(self) -> StageRecord | None:
        """The stage that runs now."""
        epoch = self._epochs.current()
        return None if epoch is None else epoch.record

    def hook(self) -> str | None:
        """The Lightning hook that runs now."""
        return _compat.current_hook(self._run.module)

    def feeding(self) -> UpdateContext | None:
        """What feeds metrics now."""
        stage = self.stage()
        return None if stage is None else stage.feeding

    def bring(self, record: MetricRecord, inputs: Iterable[Tensor]) -> None:
        """Before an update with ``inputs``: a metric that is no part of the module comes to where the module is."""
        if self.stage() is not None:
            bring(record, self._run.module, inputs)

    def logged(self, key: KeyRecord) -> None:
        """A log call was taken in; strict mode raises where every rank sees the same wrong weight."""
        if self._run.settings.mode != "strict" or not key.weights.varies or not key.on_epoch:
            return
        loader = _compat.loader_at(self._run.trainer, key.call.dataloader)
        epoch = self._epochs.current()
        if epoch is not None and (self.world_size == 1 or gives_equal_batches(loader)):
            self._epochs.refuse_weights(key, epoch)

    def compute(self, record: MetricRecord, plain: Plain) -> tuple[Any, bool]:
        """Compute a metric: in a step as the program does, at the end of the epoch over all ranks."""
        return self._dispatch(self._ways.to_compute, record, plain)

    def forward(self, record: MetricRecord, plain: Plain) -> tuple[Any, bool]:
        """Run ``forward``."""
        return self._dispatch(self._ways.to_forward, record, plain)

    def _dispatch(self, choose: Choose, record: MetricRecord, plain: Plain) -> tuple[Any, bool]:
        """Choose a way under protection and go it without, because what it raises is the program's own."""
        way, synced = plain, False

        def choose_way() -> None:
            nonlocal way, synced
            way, synced = choose(record, plain)

        self.protect(choose_way)
        if self._failure is not None:
            way, synced = self._ways.after_failure(record, plain, self.in_step)
        return way(), synced


def _joined(ranks: Sequence[int]) -> str:
    return ", ".join(map(str, ranks))
