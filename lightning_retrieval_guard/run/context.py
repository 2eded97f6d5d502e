"""What every part of one run needs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from lightning_retrieval_guard.distributed.exchange import Exchange
from lightning_retrieval_guard.report.log import FindingLog
from lightning_retrieval_guard.run.suppression_filter import SuppressionFilter
from lightning_retrieval_guard.settings import Settings
from lightning_retrieval_guard.watch.suppressions import Suppressions


@dataclass
class RunContext:
    """One run of one trainer on this process.

    Attributes:
        trainer: Lightning's trainer.
        module: Lightning's module.
        settings: Of the guard.
        log: Where findings go.
        suppressions: What the user ignores at single places.
        save: Writes the report.
        exchange: Connects the ranks; with one process until they are connected.
    """

    trainer: Any
    module: Any
    settings: Settings
    log: FindingLog
    suppressions: Suppressions
    save: Callable[[], None]
    exchange: Exchange = field(default_factory=Exchange)

    def __post_init__(self) -> None:
        self.filter = SuppressionFilter(self.suppressions, self.settings)

    @property
    def world_size(self) -> int:
        """The number of ranks."""
        return self.exchange.world_size

    @property
    def is_rank_zero(self) -> bool:
        """Whether this process is the one that warns, prints and writes."""
        return self.exchange.rank == 0
