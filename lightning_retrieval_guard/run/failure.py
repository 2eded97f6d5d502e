"""Why the guard steps aside, and how it says so."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from lightning_retrieval_guard import _compat
from lightning_retrieval_guard.findings import Finding
from lightning_retrieval_guard.rules.lrg901_guard_disabled import GuardDisabled
from lightning_retrieval_guard.watch.call_site import user_call_site


def failure_text(error: BaseException) -> str:
    """A failure in one line."""
    return f"{type(error).__name__}: {' '.join(str(error).split())}"


@dataclass(frozen=True)
class Failure:
    """A failure of the guard.

    Attributes:
        reason: In a line.
        ranks: Where it failed.
        say: Whether this process reports it.
        is_own: Whether the guard failed, and not the program, whose ranks did not meet.
    """

    reason: str
    ranks: Sequence[int]
    say: bool
    is_own: bool = True

    def finding(self, trainer: Any, module: Any) -> Finding:
        """The finding at the user's line."""
        site = user_call_site()
        return GuardDisabled().at_failure(
            self.reason,
            self.ranks,
            is_own=self.is_own,
            stage=_compat.stage_name(trainer) or "",
            hook=_compat.current_hook(module) or "",
            path=site.path,
            line=site.line,
        )
