"""LRG901 guard-disabled

## What it flags
A failure of the guard itself.

## Why it is wrong
The guard never brings a run down: it takes off its patches, on all ranks together, and the run goes on as if it were
absent. From there on numbers are neither checked nor corrected.

## Example
    trainer = Trainer(callbacks=[RetrievalGuard()])  # the warning names what failed

## Use instead
    Report it with the message of the warning.

## What correct mode does
The same. Strict mode raises instead.
"""

from __future__ import annotations

from collections.abc import Iterator

from typing_extensions import override

from lightning_retrieval_guard.findings import Finding, Severity
from lightning_retrieval_guard.rules.base import Rule
from lightning_retrieval_guard.rules.view import StageView


class GuardDisabled(Rule):
    """The guard failed and stepped aside."""

    code = "LRG901"
    slug = "guard-disabled"
    severity = Severity.WARNING

    @override
    def check(self, stage: StageView) -> Iterator[Finding]:
        # raised by the guard itself, not by what a stage shows
        yield from ()
