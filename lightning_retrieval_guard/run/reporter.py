"""What becomes of findings beside their warnings: the report on disk, the caller's copy, and the loggers' page."""

from __future__ import annotations

import os
import platform
import shlex
import sys
from dataclasses import astuple
from datetime import datetime, timezone
from pathlib import Path

from lightning.pytorch import Trainer

from lightning_retrieval_guard import _compat
from lightning_retrieval_guard.report.document import Report, RunFacts, StageCounts, set_aside, write_report
from lightning_retrieval_guard.report.log import FindingLog, Handover
from lightning_retrieval_guard.report.loggers import attach_report
from lightning_retrieval_guard.report.terminal import warn_at
from lightning_retrieval_guard.report.text import printable
from lightning_retrieval_guard.rules import REGISTRY
from lightning_retrieval_guard.rules.documentation import reason
from lightning_retrieval_guard.settings import LOG_DIR, Settings, path_refusal
from lightning_retrieval_guard.watch.call_site import user_call_site


class Reporter:
    """Reports the runs of one guard; on other ranks than zero it only keeps what is found.

    Attributes:
        log: The findings and numbers so far.
        counts: What each rank saw in the last epoch of every stage so far.
    """

    def __init__(self, settings: Settings) -> None:
        self.log = FindingLog()
        self.counts: dict[str, StageCounts] = {}
        self._settings = settings
        self._handover = Handover()
        self._path: Path | None = None
        self._is_attached = False

    def take_over(self) -> None:
        """Know what processes that were forked or spawned from this one have found."""
        self.log = self._handover.take() or self.log

    def start_run(self, trainer: Trainer) -> None:
        """Go on from what was found before, and see to the place of the report.

        Raises:
            ValueError: The report cannot be written where the settings want it.
            OSError: Its folder cannot be made.
        """
        self._is_attached = False
        self.take_over()
        self.log.start_run()
        if self._settings.report is None or not trainer.is_global_zero:  # no other rank writes it
            return
        path = Path(str(self._settings.report).replace(LOG_DIR, _log_dir(trainer)))
        if refusal := path_refusal(path):
            raise ValueError(f"report={str(path)!r} {refusal}.")
        # the file may be a link to one in another folder
        Path(os.path.realpath(path)).parent.mkdir(parents=True, exist_ok=True)
        # a guard writes over its own report, and over nobody else's
        if self.log.report != str(path):
            self.log.report, self.log.earlier = str(path), str(set_aside(path) or "")
        self._path = path

    def write(self, trainer: Trainer, is_last: bool) -> None:
        """Write the report, and hand what was found to the caller's process.

        Args:
            trainer: Lightning's trainer.
            is_last: Whether the run ends on an error, so that no later moment will come.
        """
        try:
            self._handover.give(self.log)
            if self._path is not None:
                write_report(self._path, self.build(trainer))
        except OSError as error:
            self.log.warn_of_unwritten(error, *astuple(user_call_site()))
        if is_last or self.log.stopped:  # forked processes hear of no error that ends their run
            self._attach(trainer)

    def end_run(self, trainer: Trainer) -> None:
        """The run is over without an error: close it with one line."""
        self.log.end_run()
        self._attach(trainer)

    def build(self, trainer: Trainer) -> Report:
        """The report as of now."""
        self.take_over()
        findings = self.log.findings
        reasons = {code: reason(REGISTRY[code]) for code in {finding.code for finding in findings}}
        return Report(
            mode=self._settings.mode,
            world_size=trainer.world_size,
            findings=tuple(findings),
            history=self.log.history,
            stages=self.counts,
            reasons={code: text for code, text in reasons.items() if text is not None},
            run=_run_facts(trainer),
            stopped=self.log.stopped,
        )

    def _attach(self, trainer: Trainer) -> None:
        """Give the report to the loggers, once a run."""
        if not self._settings.report_to_loggers or self._is_attached or trainer.fast_dev_run:  # type: ignore[attr-defined]
            return
        self._is_attached = True
        for trouble in attach_report(trainer.loggers, self.build(trainer), trainer.global_step):
            text = f"RetrievalGuard: a logger has not got the report: {trouble}. The run goes on."
            warn_at(printable(text), *astuple(user_call_site()))


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
