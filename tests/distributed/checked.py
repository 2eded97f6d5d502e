"""The guard under test, with what holds for every report."""

from __future__ import annotations

from typing import Any

from lightning_retrieval_guard import RetrievalGuard
from lightning_retrieval_guard.report.faults import KeyState, judge_keys


class CheckedGuard(RetrievalGuard):
    """No key may be called wrong or corrected without a finding at it."""

    def teardown(self, trainer: Any, pl_module: Any, stage: str) -> None:
        super().teardown(trainer, pl_module, stage)
        report = self._reporter.build(trainer)
        for key in judge_keys(report.keys, report.findings):
            is_accused = key.state in (KeyState.WRONG, KeyState.CORRECTED)
            assert key.codes or not is_accused, f"{key} is {key.state.value}, and nothing was found there"
