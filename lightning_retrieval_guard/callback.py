"""The callback: which part does what at which hook of the trainer."""

from __future__ import annotations

import contextlib
import os
import platform
import shlex
import sys
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import astuple
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from lightning.pytorch import Callback, Trainer
from typing_extensions import override

from lightning_retrieval_guard import _compat
from lightning_retrieval_guard._compat import GuardError
from lightning_retrieval_guard.distributed.exchange import make_exchange
from lightning_retrieval_guard.findings import Finding, GuardWarning
from lightning_retrieval_guard.report.document import Report, RunFacts, StageCounts, set_aside, write_report
from lightning_retrieval_guard.report.faults import failing
from lightning_retrieval_guard.report.log import FindingLog, Handover, warn_of_versions
from lightning_retrieval_guard.report.loggers import attach_report
from lightning_retrieval_guard.report.terminal import render_error, warn_at
from lightning_retrieval_guard.report.text import printable
from lightning_retrieval_guard.rules import REGISTRY
from lightning_retrieval_guard.rules.documentation import reason
from lightning_retrieval_guard.run.context import RunContext
from lightning_retrieval_guard.run.session import Session
from lightning_retrieval_guard.settings import (
    LOG_DIR,
    TIMEOUT_VARIABLE,
    Mode,
    PathLike,
    QueryScope,
    build_settings,
    check_choice,
    path_refusal,
)
from lightning_retrieval_guard.watch.call_site import user_call_site, without_own_frames
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
        self._log = FindingLog()
        self._handover = Handover()
        self._session: Session | None = None
        self._report: Path | None = None
        self._attached = False
        self._counts: dict[str, StageCounts] = {}
        self._world_size = 1

    @property
    def findings(self) -> list[Finding]:
        """The findings, merged over ranks after each epoch, in the process that called the Trainer too."""
        self._take_over()
        return self._log.findings

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
            self._take_over()
            verdict = self._log.verdict
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
        self._world_size = trainer.world_size
        self._attached = False

        def save() -> None:
            self._write_report(trainer)

        run = RunContext(trainer, pl_module, self.settings, self._log, self._suppressions, save)
        self._session = Session(run)
        self._session.open(lambda: make_exchange(trainer.world_size), lambda: self._prepare(trainer, run))

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
        self._end_stage(trainer)

    @override
    def on_validation_end(self, trainer: Any, pl_module: Any) -> None:
        self._end_stage(trainer)

    @override
    def on_test_end(self, trainer: Any, pl_module: Any) -> None:
        self._end_stage(trainer)

    @override
    def on_train_end(self, trainer: Any, pl_module: Any) -> None:
        self._end_stage(trainer)

    @override
    def on_exception(self, trainer: Any, pl_module: Any, exception: BaseException) -> None:
        with contextlib.suppress(GuardWarning):  # turned into an error, it would hide the one that ends the run
            if self._session is not None:
                self._session.leave(exception)
                self._session.protect(self._write_report, trainer, is_last=True)
            self._close()
        if isinstance(exception, GuardError):
            exception.__traceback__ = without_own_frames(exception.__traceback__)

    @override
    def teardown(self, trainer: Any, pl_module: Any, stage: str) -> None:
        session = self._session
        if session is not None:
            session.protect(session.end_run)
            session.protect(self._end_run, session, trainer, stage)
        self._close()

    # --- parts ------------------------------------------------------------------------------------------------

    def _prepare(self, trainer: Trainer, run: RunContext) -> timedelta:
        """Go on from what was found before, check what only a run can tell of, and say how long ranks wait."""
        self._take_over()
        run.log = self._log
        run.log.start_run()
        if self.settings.report is not None and trainer.is_global_zero:  # no other rank writes it
            path = Path(str(self.settings.report).replace(LOG_DIR, _log_dir(trainer)))
            if refusal := path_refusal(path):
                raise ValueError(f"report={str(path)!r} {refusal}.")
            # the file may be a link to one in another folder
            Path(os.path.realpath(path)).parent.mkdir(parents=True, exist_ok=True)
            # a guard writes over its own report, and over nobody else's
            if run.log.report != str(path):
                run.log.report, run.log.earlier = str(path), str(set_aside(path) or "")
            self._report = path
        return _timeout(trainer)

    def _take_over(self) -> None:
        """Know what processes that were forked or spawned from this one have found."""
        self._log = self._handover.take() or self._log

    def _start_batch(self, batch: Any, index: int, dataloader: int | None) -> None:
        session = self._session
        if session is not None:
            session.start_batch(batch, index, dataloader)

    def _end_stage(self, trainer: Trainer) -> None:
        if self._session is not None:
            self._session.protect(self._write_report, trainer)

    def _end_run(self, session: Session, trainer: Trainer, stage: str) -> None:
        if session.is_rank_zero and stage != "predict":
            self._log.end_run()
            self._attach(trainer)

    def _write_report(self, trainer: Trainer, *, is_last: bool = False) -> None:
        session, path = self._session, self._report
        if session is None or not session.is_rank_zero:
            return
        self._counts.update(session.counts)
        try:
            self._handover.give(self._log)
            if path is not None:
                write_report(path, self._build_report(trainer))
        except OSError as error:
            self._log.warn_of_unwritten(error, *astuple(user_call_site()))
        if is_last or self._log.stopped:  # forked processes hear of no error that ends their run
            self._attach(trainer)

    def _build_report(self, trainer: Trainer) -> Report:
        findings = self.findings
        reasons = {code: reason(REGISTRY[code]) for code in {finding.code for finding in findings}}
        return Report(
            mode=self.settings.mode,
            world_size=self._world_size,
            findings=tuple(findings),
            history=self._log.history,
            stages=self._counts,
            reasons={code: text for code, text in reasons.items() if text is not None},
            run=_run_facts(trainer),
            stopped=self._log.stopped,
        )

    def _attach(self, trainer: Any) -> None:
        """Give the report to the loggers, once a run."""
        if not self.settings.report_to_loggers or self._attached or trainer.fast_dev_run:
            return
        self._attached = True
        for trouble in attach_report(trainer.loggers, self._build_report(trainer), trainer.global_step):
            text = f"RetrievalGuard: a logger has not got the report: {trouble}. The run goes on."
            warn_at(printable(text), *astuple(user_call_site()))

    def _close(self) -> None:
        try:
            if self._session is not None:
                self._session.close()
        finally:
            self._session = None


def _run_facts(trainer: Trainer) -> RunFacts:
    packages = ("lightning-retrieval-guard", _compat.lightning_of(trainer), "torch", "torchmetrics")
    return RunFacts(
        when=datetime.now(timezone.utc).isoformat(sep=" ", timespec="seconds"),
        command=shlex.join(sys.argv),
        versions={"python": platform.python_version(), **{name: str(_compat.version_of(name)) for name in packages}},
        epoch=trainer.current_epoch,
        global_step=trainer.global_step,
    )


def _log_dir(trainer: Trainer) -> str:
    """The folder of the first logger, as ``Trainer.log_dir`` has it, without the collective that it does."""
    loggers = trainer.loggers
    folder = (getattr(loggers[0], "log_dir", None) or loggers[0].save_dir) if loggers else None
    return str(folder or trainer.default_root_dir)


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
