"""What this rank reports where the ranks exchange facts, and which values it asks for."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from lightning_retrieval_guard import _compat
from lightning_retrieval_guard.epoch.facts import KeyFacts, SourceFacts, SourceMetricFacts, to_payload
from lightning_retrieval_guard.epoch.plan import Plan
from lightning_retrieval_guard.epoch.views import Message
from lightning_retrieval_guard.run.context import RunContext
from lightning_retrieval_guard.run.epoch import RunningEpoch
from lightning_retrieval_guard.run.sources import LocalSource, SourceFinder
from lightning_retrieval_guard.run.states import LocalStates, StateMerger
from lightning_retrieval_guard.watch.call_site import CallSite, names_device_count
from lightning_retrieval_guard.watch.keys import KeyRecord
from lightning_retrieval_guard.watch.metric_history import value_of_shard
from lightning_retrieval_guard.watch.metrics import MetricWatch
from lightning_retrieval_guard.watch.places import collect_unregistered
from lightning_retrieval_guard.watch.suppressions import patterns_of

END_HOOKS = {"train": "on_train_epoch_end", "test": "on_test_epoch_end", "validate": "on_validation_epoch_end"}


class FactCollector:
    """Makes messages of what this rank has seen."""

    def __init__(self, run: RunContext, watch: MetricWatch, finder: SourceFinder, states: StateMerger) -> None:
        self._run = run
        self._watch = watch
        self._finder = finder
        self._states = states

    def message(self, epoch: RunningEpoch, keys: Sequence[KeyRecord]) -> Message:
        """What this rank reports of an epoch and of some of its keys, besides its sources."""
        trainer, record = self._run.trainer, epoch.record
        results = _compat.results_of(trainer) or {}
        padding, logged, edges = record.padding(), list(record.keys.values()), record.edges
        # a Lightning that pairs keys by name lets ranks log them in any order
        if not _compat.ORDER_PAIRS_KEYS.shown_by(_compat.lightning_of(trainer)):
            keys = sorted(keys, key=lambda key: key.call.storage)
        unregistered = collect_unregistered(trainer, self._run.module, self._watch, record.stage, logged)
        flattened = [to_payload(call) for call in record.flattened.values()]
        states = {name: facts.to_payload() for name, facts in self._states.facts(epoch.local_states).items()}
        return {
            "batches": record.batches,
            "samples": record.samples,
            **({"dataloader": record.dataloader} if record.dataloader else {}),
            "repeated": padding.repeated if padding is not None else 0,
            **({"edges": edges} if edges else {}),
            "monitored": sorted(_compat.monitored_keys(trainer)),
            "more": self._has_hook(record.stage),
            "ignores": self._run.filter.may_ignore((self._run.module, *_compat.callbacks_of(trainer))),
            # in the order in which Lightning combines them
            "keys": [self._collect(key, epoch, results.get(key.call.storage)).to_payload() for key in keys],
            **({"unregistered": unregistered} if unregistered else {}),
            **({"flattened": flattened} if flattened else {}),
            **({"states": states} if states else {}),
            **({"computed": [to_payload(call) for call in epoch.computed.values()]} if epoch.computed else {}),
            **({"skips": True} if epoch.skipped else {}),
        }

    def _collect(self, key: KeyRecord, epoch: RunningEpoch, result: Any | None) -> KeyFacts:
        source = self._finder.name_of(key, epoch.record, epoch.local)
        call, feeding = key.call, epoch.record.feeding
        metric = key.history.describe(call.kind, key.calls, call.dataloader, feeding, self._run.world_size)
        shows = _names_of(epoch.local_states, key.shown_metrics) + _names_of(epoch.local, key.shown_parts)
        facts = collect_key(key, result, source, metric)
        return replace(
            facts,
            shows=shows,
            is_composed=bool(key.shown_parts),
            holds_unseen_rows=key.holds_unseen_rows,
            fed_in=self._fed_in(facts, key, epoch),
            **self._shard(facts, key),
        )

    def _fed_in(self, facts: KeyFacts, key: KeyRecord, epoch: RunningEpoch) -> int | None:
        """The dataloader that a key's values are of, where the key does not name one of several."""
        if facts.dataloader is not None or facts.mixed or not _compat.draws_from_several(self._run.trainer):
            return None
        if facts.kind != "plain":
            return key.fed_in(epoch.record.epoch)
        # Lightning refuses a key without a dataloader in the steps of two
        return epoch.record.dataloader if facts.in_step else None

    def _shard(self, facts: KeyFacts, key: KeyRecord) -> dict[str, Any]:
        metric = key.shown.metric() if key.shown is not None else None
        if metric is None or self._run.world_size == 1:
            return {}
        of_shard = value_of_shard(metric) if facts.kind == "metric" else None
        return {"of_shard": of_shard, "lacks_states": not _compat.keeps_states(metric)}

    def _has_hook(self, stage: str) -> bool:
        """Whether the program has a hook of its own at the end of the epoch, in which it may log."""
        hook = END_HOOKS.get(stage, "on_validation_epoch_end")
        owners = (self._run.module, *_compat.callbacks_of(self._run.trainer))
        return any(_compat.defines_hook(owner, hook) for owner in owners)

    def wants(self, name: str, plan: Plan, messages: Sequence[Message]) -> bool:
        """Whether the value of a source is worth a collective."""
        # where findings raise, all ranks must come to the same ones
        # in warn mode a value travels only where a finding is going to show it
        if self._run.settings.mode != "warn" or plan.uneven or plan.ids_restart or plan.left_out or plan.classes:
            return True
        sources = [message["sources"][name] for message in messages if name in message["sources"]]
        facts = [SourceFacts.from_payload(source) for source in sources]
        # rows that are not of the epoch change the metric's number
        others = any(source.stale or source.shared or source.lost for source in facts)
        if others or not all(source.synchronises for source in facts):
            return True
        keys = [KeyFacts.from_payload(entry) for message in messages for entry in message["keys"]]
        # the mean of step values has to be compared with the value of all rows
        return any(key.source == name and key.in_step and key.kind in ("forward", "compute") for key in keys)


def _names_of(local: Mapping[str, LocalSource | LocalStates], metrics: Iterable[Any]) -> list[str]:
    wanted = set(map(id, metrics))
    return [name for name, entry in local.items() if id(entry.metric) in wanted]


def collect_key(
    key: KeyRecord, result: Any | None, source: str | None, metric: SourceMetricFacts | None = None
) -> KeyFacts:
    """What this rank reports of one of its keys; reads the running sums, so it is for the end of an epoch."""
    call, weights, counts = vars(key.call), key.weights, vars(key.weights.facts)
    value = weight = None
    # a Metric object keeps its sums itself
    if result is not None and call["kind"] != "metric":
        value = float(_compat.result_value(result))
        summed = _compat.result_weight(result)
        weight = None if summed is None else float(summed)
    if result is not None and not _compat.FLOORED_WEIGHTS.shown_by(_compat.lightning_of(result)):
        # where nothing floors them, integers are as good as floats
        counts = {**counts, "integral": False}
    # reading the source takes long, so it is read only where a weight gives a reason
    times_world = counts["times_world"] or counts["times_world_nominal"]
    return KeyFacts(
        **{**call, "kind": "plain"} if key.mixed else call,
        **counts,
        **vars(metric if metric is not None and not key.mixed else SourceMetricFacts()),
        calls=key.calls,
        mixed=key.mixed,
        synced=key.synced,
        is_written=bool(key.is_written),
        source=None if key.mixed else source,
        value=value,
        weight=weight,
        first_batch=None if key.first_batch is None else key.first_batch.total,
        first_sample=None if key.first_batch is None else key.first_batch.of_sample,
        last_batch=None if key.last_batch is None else key.last_batch.total,
        last_sample=None if key.last_batch is None else key.last_batch.of_sample,
        last_of=key.last_of,
        names_devices=bool(times_world) and names_device_count(CallSite(call["path"], call["line"])),
        lacks_value=float(weights.value),
        lacks_weight=float(weights.weight),
        suppressed=patterns_of(key.suppressed),
    )
