"""Why the guard steps aside, and how it says so."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from lightning_retrieval_guard import _compat
from lightning_retrieval_guard.findings import Finding
from lightning_retrieval_guard.rules import REGISTRY
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
        say: Whether this process tells of it.
        is_own: Whether the guard failed, and not the program, whose ranks did not meet.
    """

    reason: str
    ranks: Sequence[int]
    say: bool
    is_own: bool = True

    def finding(self, trainer: Any, module: Any) -> Finding:
        """LRG901, at the user's line."""
        rule, site = REGISTRY["LRG901"], user_call_site()
        return Finding(
            code=rule.code,
            rule=rule.slug,
            severity=rule.severity,
            key="",
            stage=_compat.stage_name(trainer) or "",
            hook=_compat.current_hook(module) or "",
            path=site.path,
            line=site.line,
            message=f"the guard {'failed and ' * self.is_own}stepped aside ({self.reason}). Numbers from here on"
            " are not checked.",
            fix="Please report it with this message." if self.is_own else "Have all ranks do the same.",
            ranks=tuple(self.ranks),
        )
