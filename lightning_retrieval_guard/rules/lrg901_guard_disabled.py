"""LRG901 guard-disabled

## What it flags
A failure of the guard itself, or ranks that did not come to where it meets them; the warning names what happened.

## Why it is wrong
The guard does not bring a run down: it takes off its patches on all ranks together, and the run goes on as if it were
absent. From there on numbers are neither checked nor corrected.

## Example
    trainer = Trainer(callbacks=[RetrievalGuard()])
    trainer.validate(model)  # LRG901: the numbers of this run are not checked

## Use instead
Where the warning names ranks that did not come, have all ranks do the same. Please report a failure of the guard itself
with the message of the warning. To stop the run instead of going on unchecked:

    trainer = Trainer(callbacks=[RetrievalGuard(mode="strict")])

## What correct mode does
The same: it steps aside, and numbers are logged as without the guard.
"""

from __future__ import annotations

from collections.abc import Iterator

from typing_extensions import override

from lightning_retrieval_guard.epoch.views import StageView
from lightning_retrieval_guard.findings import Finding, Severity
from lightning_retrieval_guard.rules.base import Rule


class GuardDisabled(Rule):
    """The guard failed and stepped aside."""

    code = "LRG901"
    slug = "guard-disabled"
    severity = Severity.WARNING

    @override
    def check(self, stage: StageView) -> Iterator[Finding]:
        # raised by the guard itself, not by what a stage shows
        yield from ()
