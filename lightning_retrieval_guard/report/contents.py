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
class EpochNumbers:
    """The numbers of one key in one epoch of one stage.

    Attributes:
        stage: ``"train"``, ``"validate"`` or ``"test"``.
        epoch: The trainer's, from 0.
        global_step: The trainer's.
        numbers: Logged value and reference, each where it is known.
    """

    stage: str
    epoch: int
    global_step: int
    numbers: Numbers


@dataclass(frozen=True)
class RunFacts:
    """Where a report comes from.

    Attributes:
        when: Date and time in UTC, as ISO 8601 has it.
        command: What was typed to start the program.
        versions: Of Python and of the packages that matter.
        epoch: The trainer's, from 0.
        global_step: The trainer's.
    """

    when: str
    command: str
    versions: Mapping[str, str]
    epoch: int
    global_step: int


@dataclass(frozen=True)
class Report:
    """What the guard has found.

    Attributes:
        mode: Of the guard.
        world_size: The number of ranks.
        findings: All findings so far.
        history: For every logged key its numbers of each epoch, the sanity check's left out.
        stages: What each rank saw, by stage; the JSON report has no place for it.
        reasons: For the codes of the findings, why what the rule flags is wrong; not in the JSON report either.
        run: Where the report comes from.
        stopped: The codes for which strict mode ended the run.
    """

    mode: str
    world_size: int
    findings: tuple[Finding, ...] = ()
    history: Mapping[str, tuple[EpochNumbers, ...]] = field(default_factory=dict)
    stages: Mapping[str, StageCounts] = field(default_factory=dict)
    reasons: Mapping[str, str] = field(default_factory=dict)
    run: RunFacts | None = None
    stopped: tuple[str, ...] = ()

    @property
    def keys(self) -> dict[str, Numbers]:
        """The numbers of every key in its last epoch."""
        return {name: epochs[-1].numbers for name, epochs in self.history.items()}
