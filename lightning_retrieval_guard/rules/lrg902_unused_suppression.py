"""LRG902 unused-suppression

## What it flags
A comment `# lrg: ignore[...]` or a block `with guard.ignore(...)` that silenced nothing by the end of the run, or a
code in it that did not. A comment at a log call that never ran is no finding, and neither is an unused code in the
argument `ignore=` of the guard. A run that ends with an exception is not judged.

## Why it is wrong
It hides the next finding of that rule, which nobody has looked at. Often the code is misspelt, or the comment does not
stand on a line of the log call.

## Example
    self.log("val_loss", loss, sync_dist=True)  # lrg: ignore[LRG203]

## Use instead
    self.log("val_loss", loss, sync_dist=True)

Many rules speak on several ranks only: look at the note of a run on as many devices as you train on. No comment and no
block silences LRG901 or this rule; `RetrievalGuard(ignore=["LRG902"])` does.

## What correct mode does
Nothing: no number is concerned.
"""

from __future__ import annotations

from collections.abc import Iterator

from typing_extensions import override

from lightning_retrieval_guard.epoch.views import StageView
from lightning_retrieval_guard.findings import Finding, Severity
from lightning_retrieval_guard.rules.base import Rule


class UnusedSuppression(Rule):
    """A suppression that silenced nothing."""

    code = "LRG902"
    slug = "unused-suppression"
    severity = Severity.NOTE

    @override
    def check(self, stage: StageView) -> Iterator[Finding]:
        # told at the end of the run, of which a stage shows a part only
        yield from ()
