"""LRG902 unused-suppression

## What it flags
A comment `# lrg: ignore[...]` or a block `with guard.ignore(...)` that ignored no finding by the end of the run, or a
code in it that did not. Not reported are comments at log calls that never ran, and codes in the argument `ignore=` of
the guard. A run that ends with an exception is not judged.

## Why it is wrong
It hides the next finding of that rule, which nobody has looked at. Often the code is misspelt, or the comment does not
stand on a line of the log call.

## Example
    self.log("val_loss", loss, sync_dist=True)  # lrg: ignore[LRG203]

## Use instead
    self.log("val_loss", loss, sync_dist=True)

Many rules find something on several ranks only: look at the note of a run on as many devices as you train on. No
comment and no block ignores LRG901 or this rule; `RetrievalGuard(ignore=["LRG902"])` does.

## What correct mode does
Nothing: no number is concerned.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from lightning_retrieval_guard.findings import Finding, Severity
from lightning_retrieval_guard.report.text import several
from lightning_retrieval_guard.rules.base import Rule, RuleSpec

if TYPE_CHECKING:
    from lightning_retrieval_guard.epoch.views import EpochView


class UnusedSuppression(Rule):
    """A suppression that silenced nothing."""

    spec = RuleSpec(
        "LRG902",
        "unused-suppression",
        Severity.NOTE,
        "Take it away, or name the rule that it is meant for.",
    )

    def check(self, epoch: EpochView) -> Iterator[Finding]:
        """Nothing: it is reported at the end of the run, of which an epoch shows a part only."""
        yield from ()

    def at_suppression(
        self, path: str, line: int, text: str, patterns: Sequence[str], rank: int, world_size: int
    ) -> Finding:
        """The finding at a comment or block some of whose codes and prefixes silenced nothing."""
        message = f"{', '.join(patterns)} in {text!r} silenced nothing in this run on {several(world_size, 'rank')}."
        return self.finding(message, key="", stage="", hook="", path=path, line=line, ranks=(rank,))
