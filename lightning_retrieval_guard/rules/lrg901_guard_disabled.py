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
The same: the guard is disabled, and numbers are logged as without it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from lightning_retrieval_guard.findings import Finding, Severity
from lightning_retrieval_guard.rules.base import Rule, RuleSpec

if TYPE_CHECKING:
    from lightning_retrieval_guard.epoch.views import EpochView


class GuardDisabled(Rule):
    """The guard failed and stepped aside."""

    spec = RuleSpec(
        "LRG901",
        "guard-disabled",
        Severity.WARNING,
        "Please report it with this message.",
    )

    def check(self, epoch: EpochView) -> Iterator[Finding]:
        """Nothing: the guard itself reports it, not what an epoch shows."""
        yield from ()

    def at_failure(
        self, reason: str, ranks: Sequence[int], *, of_guard: bool, stage: str, hook: str, path: str, line: int
    ) -> Finding:
        """The finding at the user's line; ``of_guard`` is whether the guard failed, and not the program."""
        return self.finding(
            f"the guard {'failed and ' * of_guard}stepped aside ({reason}). Numbers from here on are not checked.",
            key="",
            stage=stage,
            hook=hook,
            path=path,
            line=line,
            fix=None if of_guard else "Have all ranks do the same.",
            ranks=ranks,
        )
