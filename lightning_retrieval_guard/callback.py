"""The callback: which part does what at which hook of the trainer."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import astuple
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Literal

from lightning.pytorch import Callback, Trainer
from typing_extensions import override

from lightning_retrieval_guard import _compat
from lightning_retrieval_guard._compat import GuardError
from lightning_retrieval_guard.distributed.exchange import make_exchange
from lightning_retrieval_guard.findings import Finding, GuardWarning
from lightning_retrieval_guard.report.faults import failing
from lightning_retrieval_guard.report.log import warn_of_versions
from lightning_retrieval_guard.report.terminal import render_error
from lightning_retrieval_guard.rules import REGISTRY
from lightning_retrieval_guard.run.context import RunContext
from lightning_retrieval_guard.run.reporter import Reporter
from lightning_retrieval_guard.run.session import Session
from lightning_retrieval_guard.settings import (
    TIMEOUT_VARIABLE,
    Mode,
    PathLike,
    QueryScope,
    build_settings,
    check_choice,
)
from lightning_retrieval_guard.watch.call_site import user_call_site, without_guard_frames
from lightning_retrieval_guard.watch.suppressions import Suppressions

_LONGEST_TIMEOUT = 7 * 24 * 3600

if TYPE_CHECKING or (
    _compat.version_of("pytorch_lightning") and _compat.REFUSED_CALLBACKS.shown_by("pytorch_lightning")
):
    from pytorch_lightning import Callback as OtherCallback
else:
    OtherCallback = object


# For type checkers it is always a callback of both packages, and hooks take trainers and modules of both.
class RetrievalGuard(Callback, OtherCallback):  # type: ignore[misc]  # each package has types of its own
    """Sees to it that the number logged on N devices is the number one device would have logged.

    Example:
        >>> guard = RetrievalGuard(mode="correct")
        >>> guard.findings
        []

    Args:
        mode: ``"warn"`` reports what is wrong and changes nothing; ``"correct"`` logs the one-device number;
            ``"strict"`` raises ``GuardError`` on every rank.
        select: Rule codes or prefixes that are enabled, such as ``["LRG2", "LRG301"]``; all if ``None``.
        ignore: Rule codes or prefixes that are not reported, not corrected, and never raise.
        query_scope: Which rows with the same query id belong together: ``"global"`` means the whole epoch,
            ``"batch"`` one update call, ``"auto"`` decides by evidence.
        batch_size_fn: Returns the number of samples in a batch, for batches that do not show it.
        report: A path that ends in ``.json`` or ``.html``, written by rank zero after each stage and on error;
            ``{log_dir}`` in it is the trainer's.
        log_findings: Whether the run's loggers get ``guard/errors``, ``guard/warnings`` and ``guard/<code>``, the
            numbers of findings in an epoch.
        report_to_loggers: Whether loggers that can keep files get the report at the end of each run: TensorBoard as
            text, Weights & Biases and MLflow as a page.
        max_held_mb: The most memory in MiB that the guard keeps alive on a rank beyond what the program holds: rows of
            metrics that live for a step only. Where more would be needed, a finding has no reference value.

    Where ``select``, ``ignore``, ``query_scope`` or ``report`` is not given, the environment variable
    ``LIGHTNING_RETRIEVAL_GUARD_SELECT`` and so on is asked.

    Raises:
        ValueError: An argument has a value that is not allowed.
        TypeError: ``batch_size_fn`` cannot be called, or ``select`` or ``ignore`` holds something else than strings.
    """

    def __init__(
        self,
        mode: Mode = "warn",
        *,
        select: Sequence[str] | None = None,
        ignore: Sequence[str] = (),
        query_scope: QueryScope = "auto",
        batch_size_fn: Callable[[Any], int] | None = None,
        report: PathLike | None = None,
        log_findings: bool = True,
        report_to_loggers: bool = False,
        max_held_mb: float = 256,
    ) -> None:
        self.from_environment = False
        self.settings = build_settings(
            mode,
            select,
            ignore,
            query_scope,
            batch_size_fn,
            report,
            log_findings,
            report_to_loggers,
            REGISTRY,
            max_held_mb,
        )
        self._suppressions = Suppressions(REGISTRY)
        self._reporter = Reporter(self.settings)
        self._session: Session | None = None

    @property
    def findings(self) -> list[Finding]:
        """The findings, merged over ranks after each epoch, in the process that called the Trainer too."""
        self._reporter.take_over()
        return self._reporter.log.findings

    def raise_for_findings(self, at_least: Literal["warning", "error"] = "warning") -> None:
        """Raise if anything was found that is so bad and was not corrected.

        Example:
            >>> RetrievalGuard().raise_for_findings()

        Args:
            at_least: ``"warning"``, or ``"error"`` to let warnings pass.

        Raises:
            GuardError: With location, code, numbers and fix of each fault.
            ValueError: ``at_least`` has another value.
        """
        __tracebackhide__ = True
        check_choice("at_least", at_least, ("warning", "error"))
        if findings := failing(self.findings, at_least):
            raise GuardError(render_error(findings))

    def __repr__(self) -> str:
        """Mode, and what was found so far."""
        try:
            self._reporter.take_over()
            verdict = self._reporter.log.verdict
        except Exception as error:  # whoever shows objects, such as a debugger, must be able to show this one
            verdict = f"no verdict ({type(error).__name__}: {error})"
        return f"RetrievalGuard(mode={self.settings.mode!r}): {verdict}"

    def ignore(self, *codes: str) -> AbstractContextManager[None]:
        """Ignore rules for the log calls and metric updates inside a ``with`` block.

        In correct mode they are not corrected either, and in strict mode they do not raise. Blocks nest.

        Example:
            >>> guard = RetrievalGuard()
            >>> with guard.ignore("LRG203", "LRG3"):
            ...     pass  # log calls

        Args:
            codes: Rule codes or prefixes; ``"LRG"`` means all.

        Returns:
            A context manager, which may be entered several times.

        Raises:
            ValueError: No code is given, or one that no rule about log calls or metrics starts with.
            TypeError: A code is not a string.
        """
        return self._suppressions.block(codes)

    def __getstate__(self) -> dict[str, Any]:
        """The guard without its run, so that it can be copied and sent to other processes."""
        return {**vars(self), "_session": None}

    # --- hooks, in the order of the trainer -------------------------------------------------------------------

    @override
    def setup(self, trainer: Any, pl_module: Any, stage: str) -> None:
        guards = [other for other in _compat.callbacks_of(trainer) if isinstance(other, RetrievalGuard)]
        others = [other for other in guards if other is not self]
        if others and self.from_environment:
            return  # the one given in code wins
        if any(not other.from_environment for other in others):
            raise GuardError("The trainer has more than one RetrievalGuard. Give it one.")
        # a run before may have ended without a teardown
        self._close()
        if trainer.is_global_zero:
            warn_of_versions(_compat.unchecked_versions(trainer, pl_module), *astuple(user_call_site()))

        def prepare() -> timedelta:
            self._reporter.start_run(trainer)
            return _timeout(trainer)

        self._session = Session(RunContext(trainer, pl_module, self.settings, self._reporter, self._suppressions))
        self._session.open(lambda: make_exchange(trainer.world_size), prepare)

    @override
    def on_train_batch_start(self, trainer: Any, pl_module: Any, batch: Any, batch_idx: int) -> None:
        self._start_batch(batch, batch_idx, None)

    @override
    def on_validation_batch_start(
        self, trainer: Any, pl_module: Any, batch: Any, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        self._start_batch(batch, batch_idx, dataloader_idx)

    @override
    def on_test_batch_start(
        self, trainer: Any, pl_module: Any, batch: Any, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        self._start_batch(batch, batch_idx, dataloader_idx)

    @override
    def on_train_epoch_start(self, trainer: Any, pl_module: Any) -> None:
        self._end_stage()

    @override
    def on_validation_end(self, trainer: Any, pl_module: Any) -> None:
        self._end_stage()

    @override
    def on_test_end(self, trainer: Any, pl_module: Any) -> None:
        self._end_stage()

    @override
    def on_train_end(self, trainer: Any, pl_module: Any) -> None:
        self._end_stage()

    @override
    def on_exception(self, trainer: Any, pl_module: Any, exception: BaseException) -> None:
        with contextlib.suppress(GuardWarning):  # turned into an error, it would hide the one that ends the run
            if self._session is not None:
                self._session.leave(exception)
                self._session.protect(self._session.save, is_last=True)
            self._close()
        if isinstance(exception, GuardError):
            exception.__traceback__ = without_guard_frames(exception.__traceback__)

    @override
    def teardown(self, trainer: Any, pl_module: Any, stage: str) -> None:
        session = self._session
        if session is not None:
            session.protect(session.end_run, stage)
        self._close()

    # --- parts ------------------------------------------------------------------------------------------------

    def _start_batch(self, batch: Any, index: int, dataloader: int | None) -> None:
        session = self._session
        if session is not None:
            session.start_batch(batch, index, dataloader)

    def _end_stage(self) -> None:
        if self._session is not None:
            self._session.protect(self._session.save)

    def _close(self) -> None:
        try:
            if self._session is not None:
                self._session.close()
        finally:
            self._session = None


def _timeout(trainer: Trainer) -> timedelta:
    """How long ranks wait for each other: the variable in seconds, else as long as the strategy's group."""
    given = os.environ.get(TIMEOUT_VARIABLE)
    if given is None:
        return _compat.group_timeout(trainer)
    try:
        seconds = float(given)
    except ValueError:
        seconds = 0.0
    if not 0 < seconds <= _LONGEST_TIMEOUT:  # also refuses NaN
        raise GuardError(
            f"{TIMEOUT_VARIABLE}={given!r} must be a number of seconds above 0, such as 300, and no more than"
            f" {_LONGEST_TIMEOUT} (a week)."
        )
    return timedelta(seconds=seconds)
