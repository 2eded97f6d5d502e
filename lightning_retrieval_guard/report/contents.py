"""What a report holds, whatever its form."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from lightning_retrieval_guard.findings import Finding, Numbers


@dataclass(frozen=True)
class RowCounts:
    """What one rank holds of one retrieval metric at the end of an epoch.

    Attributes:
        updates: Updates since the last reset.
        queries: Distinct query ids.
    """

    updates: int = 0
    queries: int = 0


@dataclass(frozen=True)
class StageCounts:
    """What each rank saw in the last epoch of a stage, in order of rank.

    Attributes:
        samples: Samples, repeated ones included; ``None`` where a batch did not show its size.
        metrics: For every retrieval metric, by name, what each rank holds of it.
    """

    samples: tuple[int | None, ...]
    metrics: Mapping[str, tuple[RowCounts, ...]] = field(default_factory=dict)


@dataclass(frozen=True)
class Report:
    """What the guard has found.

    Attributes:
        mode: Of the guard.
        world_size: The number of ranks.
        findings: All findings so far.
        keys: For every logged key its numbers, each where it is known.
        stages: What each rank saw, by stage; the JSON report has no place for it.
        reasons: For the codes of the findings, why what the rule flags is wrong; not in the JSON report either.
    """

    mode: str
    world_size: int
    findings: tuple[Finding, ...] = ()
    keys: Mapping[str, Numbers] = field(default_factory=dict)
    stages: Mapping[str, StageCounts] = field(default_factory=dict)
    reasons: Mapping[str, str] = field(default_factory=dict)
