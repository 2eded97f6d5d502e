"""One run of one trainer on this process: what is patched, and the moments at which something happens."""

from __future__ import annotations

import functools
from collections.abc import Callable
from datetime import timedelta
from typing import Any

from lightning_retrieval_guard import _compat
from lightning_retrieval_guard._compat import GuardError
from lightning_retrieval_guard.distributed.exchange import Exchange, ExchangeError
from lightning_retrieval_guard.run.collect import END_HOOKS
from lightning_retrieval_guard.run.compute import ComputeDispatcher
from lightning_retrieval_guard.run.context import RunContext
from lightning_retrieval_guard.run.epochs import Epochs
from lightning_retrieval_guard.run.listener import Listener
from lightning_retrieval_guard.run.protection import Protection, failure_text
from lightning_retrieval_guard.watch.call_site import without_guard_frames
from lightning_retrieval_guard.watch.log_calls import LogWatch
from lightning_retrieval_guard.watch.metrics import MetricWatch
from lightning_retrieval_guard.watch.patches import Patches
from lightning_retrieval_guard.watch.stage import StageRecord
from lightning_retrieval_guard.watch.torch_functions import FunctionWatch

Wrap = Callable[[Callable[..., Any]], Callable[..., Any]]


class Session:
    """Watches one run, and acts where the ranks meet."""

    def __init__(self, run: RunContext) -> None:
        self._run = run
        self._protection = Protection(run, self._take_off)
        self.protect = self._protection.protect
        self._listener = Listener(run, self._protection)
        self._patches = Patches()
        self._metrics = MetricWatch(self._listener, run.settings.max_held_mb)
        self._functions = FunctionWatch(self.protect)
        # taking off needs epochs too, even where the ranks were never connected
        self._connect(lambda: run.exchange)

    # --- putting on and taking off ----------------------------------------------------------------------------

    def open(self, connect: Callable[[], Exchange], prepare: Callable[[], timedelta]) -> None:
        """Put on the patches, on the process that works, and connect the ranks, if all are ready.

        Args:
            connect: Makes the exchange, without a word to other ranks.
            prepare: Checks what the user gave, and says how long ranks wait for each other.
        """
        self._protection.is_open = True
        timeout, trouble, refused = _compat.DEFAULT_TIMEOUT, None, None
        try:
            self._connect(connect)
            # a run before may have ended without being taken off
            self._run.suppressions.start_over()
            try:
                timeout = prepare()
            except (GuardError, ValueError) as error:
                # the others hear of it in join(), and the user gets the error itself
                refused = error
                raise
            self._install()
        except Exception as error:  # the other ranks hear of it before anything is changed
            trouble = failure_text(error)
        try:
            self._run.exchange.join(timeout, trouble)
        except Exception as error:
            if refused is not None:
                self._take_off()
                raise refused from None
            self._protection.fail(error)
            self._protection.give_up()

    def _connect(self, connect: Callable[[], Exchange]) -> None:
        self._run.exchange = connect()
        self._epochs = self._listener.epochs = Epochs(self._run, self._metrics)
        self._listener.dispatcher = ComputeDispatcher(self._run, self._epochs, self.protect)

    def _install(self) -> None:
        trainer, module, meet = self._run.trainer, self._run.module, self._protection.meet
        self._metrics.install()
        LogWatch(trainer, module, self._metrics, self._listener).install(self._patches)
        for step in _compat.EVALUATION_STEPS:
            self._patches.put(trainer.strategy, step, self._watching_functions)
        connector = _compat.logger_connector(trainer)
        # between these two Lightning combines and computes what was logged
        self._patches.put(connector, "epoch_end_reached", _before(meet, self._end_batches))
        self._patches.put(connector, "on_epoch_end", _after(self.protect, self._epochs.end))
        for hook in END_HOOKS.values():
            self._patches.put(module, hook, _after(meet, self._epochs.end_hooks))
            self._patches.put(module, hook, self._watching_functions)
        # a loop without batches calls no hook, so its end is where this rank joins the others
        for loop in _compat.evaluation_loops(trainer):
            self._patches.put(loop, "run", _after(meet, functools.partial(self._end_loop, loop)))

    def _watching_functions(self, original: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(original)
        def run(*args: Any, **kwargs: Any) -> Any:
            if not self._functions.observers:
                return original(*args, **kwargs)
            with self._functions:
                return original(*args, **kwargs)

        return run

    def _observe(self, stage: StageRecord | None) -> None:
        """Let observers hear of what the program calls from now on, where that cannot disturb code that it compiles."""
        observers = [] if stage is None else stage.observers
        # another stack of modes makes torch compile anew, which it does a few times only
        if observers and (_compat.TRACED_MODES.shown_by("torch") or _compat.is_compiled(self._run.module)):
            observers = []
        self._functions.observers = observers

    def _end_batches(self) -> None:
        self._epochs.end_batches()
        self._observe(self._listener.stage())

    def close(self) -> None:
        """Take off the patches. May be called twice."""
        if self._protection.is_open:
            self._take_off()
        if self._protection.failure is not None:  # it came after the last meeting
            self._protection.step_aside(say=True)

    def _take_off(self) -> None:
        self._protection.is_open = False
        parts = (
            self._run.suppressions.start_over,
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
            self._protection.fail(error)

    # --- the moments of a run ---------------------------------------------------------------------------------

    def start_batch(self, batch: Any, index: int, dataloader: int | None) -> None:
        """A batch begins."""
        # before anything can fail: what a metric does from here on is part of the step
        self._protection.in_step = True
        self.protect(self._start_batch, batch, index, dataloader)

    def _start_batch(self, batch: Any, index: int, dataloader: int | None) -> None:
        stage = self._listener.stage()
        self._metrics.start_batch()
        if stage is not None:
            settings = self._run.settings
            stage.start_batch(self._run.trainer, batch, index, dataloader, settings.batch_size_fn, settings.max_held_mb)
        self._observe(stage)

    def _end_loop(self, loop: Any) -> None:
        # such a rank never comes to the hooks in which the others wait for it
        if self._run.world_size > 1 and _compat.skipped_for_lack_of_batches(loop):
            self._epochs.join_from_outside()

    def save(self, *, is_last: bool = False) -> None:
        """Write the report as of now; ``is_last`` where the run ends on an error."""
        self._run.save(is_last)

    def end_run(self, stage: str) -> None:
        """The run is over without an exception: report suppressions that were of no use, and the verdict."""
        findings = list(self._run.filter.unused(self._run.exchange.rank, self._run.world_size))
        if findings:
            self._run.reporter.log.add(findings, say=self._run.is_rank_zero)
            self._run.save()
        if self._run.is_rank_zero and stage != "predict":
            self._run.reporter.end_run(self._run.trainer)

    def leave(self, reason: BaseException) -> None:
        """The run ends on this rank: let no other wait for it, unless the others brought that about."""
        if not isinstance(reason.__cause__, ExchangeError):
            self.protect(self._run.exchange.leave, failure_text(reason), failed=False)


def _before(act: Callable[[Callable[[], None]], None], action: Callable[[], None]) -> Wrap:
    def wrap(original: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(original)
        def wrapped(*args: Any, **kwargs: Any) -> Any:
            act(action)
            return original(*args, **kwargs)

        return _hiding_guard_frames(wrapped)

    return wrap


def _after(act: Callable[[Callable[[], None]], None], action: Callable[[], None]) -> Wrap:
    def wrap(original: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(original)
        def wrapped(*args: Any, **kwargs: Any) -> Any:
            result = original(*args, **kwargs)
            act(action)
            return result

        return _hiding_guard_frames(wrapped)

    return wrap


def _hiding_guard_frames(function: Callable[..., Any]) -> Callable[..., Any]:
    """Let an error of strict mode show the program: forked processes print it before any hook could."""

    @functools.wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        try:
            return function(*args, **kwargs)
        except GuardError as error:
            raise error.with_traceback(without_guard_frames(error.__traceback__)) from error.__cause__

    return call
