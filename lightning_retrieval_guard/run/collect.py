"""What a rank tells where the ranks meet, and what it asks for."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any

from lightning_retrieval_guard import _compat
from lightning_retrieval_guard.distributed.exchange import Exchange, ExchangeError
from lightning_retrieval_guard.epoch.facts import KeyFacts, SourceFacts, SourceMetricFacts
from lightning_retrieval_guard.epoch.plan import Plan
from lightning_retrieval_guard.findings import GuardError
from lightning_retrieval_guard.report.columns import printable
from lightning_retrieval_guard.run import judge
from lightning_retrieval_guard.run.epoch import Epoch
from lightning_retrieval_guard.run.sources import SourceFinder
from lightning_retrieval_guard.run.synchronize import Message
from lightning_retrieval_guard.settings import Settings
from lightning_retrieval_guard.watch.keys import KeyRecord
from lightning_retrieval_guard.watch.metrics import MetricWatch
from lightning_retrieval_guard.watch.stage import StageRecord
from lightning_retrieval_guard.watch.unregistered import collect_unregistered

END_HOOKS = {"train": "on_train_epoch_end", "test": "on_test_epoch_end", "validate": "on_validation_epoch_end"}


class FactCollector:
    """Makes messages of what this rank has seen."""

    def __init__(
        self,
        trainer: Any,
        module: Any,
        settings: Settings,
        exchange: Exchange,
        watch: MetricWatch,
        finder: SourceFinder,
    ) -> None:
        self._trainer = trainer
        self._module = module
        self._settings = settings
        self._exchange = exchange
        self._watch = watch
        self._finder = finder

    def message(self, epoch: Epoch, keys: Sequence[KeyRecord]) -> Message:
        """What this rank tells of an epoch and of some of its keys, besides its sources."""
        results = _compat.results_of(self._trainer) or {}
        padding = epoch.record.padding()
        logged = list(epoch.record.keys.values())
        if not _compat.ORDER_PAIRS_KEYS.shown_by(_compat.lightning_of(self._trainer)):
            keys = sorted(keys, key=lambda key: key.storage)
        strays = collect_unregistered(self._trainer, self._module, self._watch, epoch.record.stage, logged)
        return {
            "batches": epoch.record.batches,
            "samples": epoch.record.samples,
            "repeated": padding.repeated if padding is not None else 0,
            "monitored": sorted(_compat.monitored_keys(self._trainer)),
            "more": self._has_hook(epoch.record.stage),
            # in the order in which Lightning combines them
            "keys": [
                judge.collect_key(
                    key,
                    results.get(key.storage),
                    self._finder.name_of(key, epoch.record, epoch.local),
                    self._behind(key, epoch.record),
                ).to_payload()
                for key in keys
            ],
            **({"unregistered": strays} if strays else {}),
        }

    def _behind(self, key: KeyRecord, stage: StageRecord) -> SourceMetricFacts:
        return key.history.describe(key.kind, key.calls, key.dataloader, stage.feeding, self._exchange.world_size)

    def _has_hook(self, stage: str) -> bool:
        """Whether the program has a hook of its own at the end of the epoch, in which it may log."""
        hook = END_HOOKS.get(stage, "on_validation_epoch_end")
        return any(_compat.defines_hook(owner, hook) for owner in (self._module, *self._trainer.callbacks))

    def wants(self, name: str, plan: Plan, messages: Sequence[Message]) -> bool:
        """Whether the value of a source is worth a collective."""
        # where findings raise, all ranks must come to the same ones
        if self._settings.mode != "warn" or plan.uneven or plan.restarting or plan.left_out:
            return True
        told = [SourceFacts.from_payload(own["sources"][name]) for own in messages if name in own["sources"]]
        if not all(own.synchronises for own in told) or any(own.stale or own.shared for own in told):
            return True
        keys = [KeyFacts.from_payload(entry) for message in messages for entry in message["keys"]]
        return any(key.source == name and key.in_step and key.kind in ("forward", "compute") for key in keys)


@contextlib.contextmanager
def refusing(settings: Settings) -> Iterator[None]:
    """Raise for the user where ranks do not meet, unless the mode is to warn.

    Raises:
        GuardError: In place of ``ExchangeError``.
    """
    try:
        yield
    except ExchangeError as error:
        if settings.mode == "warn":
            raise
        raise GuardError(printable(why_ranks_missed(error))) from error


def why_ranks_missed(error: ExchangeError) -> str:
    """The error in words; a metric that some ranks compute alone is a finding with a code of its own."""
    alone = {rank: point.partition("/compute/")[2] for rank, point in error.elsewhere.items() if "/compute/" in point}
    if alone:
        names = ", ".join(sorted(set(alone.values())))
        return (
            f"LRG204 rank-zero-sync: compute() of {names} combines all ranks, but only rank(s)"
            f" {', '.join(map(str, alone))} called it; the others never arrive. Call it on every rank. ({error})"
        )
    return (
        f"RetrievalGuard: {error}. All ranks must come to this point; a rank that skips the epoch, or code that runs"
        " on rank zero alone, keeps the others waiting."
    )
