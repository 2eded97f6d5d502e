"""The epochs of a run: when the ranks exchange facts, and when they are over."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace

from lightning_retrieval_guard import _compat
from lightning_retrieval_guard.epoch.source_view import SourceView
from lightning_retrieval_guard.epoch.views import KeyView, Message, make_key_views
from lightning_retrieval_guard.run.collect import FactCollector
from lightning_retrieval_guard.run.context import RunContext
from lightning_retrieval_guard.run.correct import compose
from lightning_retrieval_guard.run.epoch import RunningEpoch
from lightning_retrieval_guard.run.judgement import Judgement
from lightning_retrieval_guard.run.protection import refusing
from lightning_retrieval_guard.run.sources import KnownValues, LocalSource, SourceFinder
from lightning_retrieval_guard.run.states import StateMerger
from lightning_retrieval_guard.run.synchronize import Meeting, Synchronizer, Wants
from lightning_retrieval_guard.watch.keys import KeyRecord
from lightning_retrieval_guard.watch.metric_lives import MetricRecord
from lightning_retrieval_guard.watch.metrics import MetricWatch

Find = Callable[[list[KeyRecord]], dict[str, LocalSource]]


class Epochs:
    """The epochs that run now, at most one for each stage."""

    def __init__(self, run: RunContext, watch: MetricWatch) -> None:
        self._run = run
        self._watch = watch
        self._finder = SourceFinder(run, watch)
        self.names = self._finder.names
        self.states = StateMerger(run, watch, self.names.each)
        self.known_values = KnownValues(watch, self.names)
        self.judgement = Judgement(run, self.states, self._remember)
        self._collector = FactCollector(run, watch, self._finder, self.states)
        self._synchronizer = Synchronizer(run.exchange, run.settings.query_scope, self.names.metric)
        self._running: dict[str, RunningEpoch] = {}
        self._count = itertools.count()
        self._numbers: set[int] = set()

    def current(self) -> RunningEpoch | None:
        """The epoch that runs now, begun where it was not."""
        stage = _compat.stage_name(self._run.trainer)
        if stage is None or stage == "predict":
            return None
        running = self._running.get(stage)
        if running is None:
            # a validation runs within an epoch of the training, so a stage alone names no epoch
            number = next(self._count)
            self._numbers.add(number)
            running = self._running[stage] = RunningEpoch(stage, number, self._numbers)
            self._watch.start_stage(stage)
        return running

    def runs(self, epoch: int | None) -> bool:
        """Whether an epoch has begun and not ended."""
        return epoch in self._numbers

    def clear(self) -> None:
        """Forget the epochs that run, and with them all rows."""
        self.known_values.clear()
        self.states.clear()
        self._running.clear()
        self._numbers.clear()

    # --- the ranks exchange facts -----------------------------------------------------------------------------

    def end_batches(self) -> None:
        """All batches of a dataloader are over, and Lightning has not combined anything yet."""
        epoch = self.current()
        # Lightning comes here once more at the end of an epoch, without a batch since the last exchange
        if epoch is None or not epoch.record.fresh:
            return
        # what was known of metrics is of the dataloader before
        self.known_values.clear()
        epoch.record.end_batches()
        self._watch.start_batch()
        self._synchronize(epoch, "batches", lambda keys: self._finder.in_stage(epoch.record, keys))

    def end_hooks(self) -> None:
        """The module's epoch-end hook is over: everything of the epoch is logged."""
        epoch = self.current()
        self.states.end_dataloader()
        if epoch is not None and epoch.may_go_on:
            epoch.is_complete = True
            find = self._finder.of_keys
            self._synchronize(epoch, "epoch", lambda keys: find(epoch.record, keys, epoch.local))

    def join_from_outside(self) -> None:
        """This rank has no batch and skips the whole loop; the others wait for it."""
        epoch = self.current()
        if epoch is not None:
            epoch.skipped = True
        # the others come to all of these points, and wait for this rank at each
        self.end_batches()
        self.end_hooks()
        self.end()

    def _synchronize(self, epoch: RunningEpoch, point: str, find: Find) -> None:
        record, corrects = epoch.record, self._run.settings.corrects
        keys = [key for key in record.keys.values() if key.call.on_epoch and key.call.storage not in record.judged]
        # a key is judged at the first exchange after its log call, and its number replaced then at the latest
        record.judged.update(key.call.storage for key in keys)
        sources = find(keys)
        epoch.local.update(sources)
        epoch.local_states = self.states.local(record, record.keys.values())
        label = f"{record.stage}/{record.dataloader or 0}/{point}"
        meeting = self._meet(label, self._collector.message(epoch, keys), sources, self._collector.wants)
        epoch.exchanges.append(meeting.messages)
        self._run.reporter.counts[record.stage] = epoch.counts
        # a source of an earlier exchange stays, where keys may still show it
        epoch.sources.update(meeting.sources)
        epoch.states = self.states.sync(meeting.messages, epoch.local_states)
        new = make_key_views(record.stage, meeting.messages, epoch.sources, corrects)
        new = self._recompute(epoch, new) if corrects or self._run.world_size == 1 else new
        new = [compose(epoch, key) if key.parts else key for key in new]
        epoch.keys += new
        self._note_shown(epoch, new)
        self.judgement.act(epoch, new)

    def _note_shown(self, epoch: RunningEpoch, keys: Iterable[KeyView]) -> None:
        """Note in the records of metrics what keys have shown of them: on all ranks, where any has logged the key."""
        for key in keys:
            first, logged = key.first, epoch.record.keys.get(key.first.storage)
            names = [*first.shows, *(source.name for source in key.sources)]
            metrics = [epoch.local_states[name].metric for name in names if name in epoch.local_states]
            metrics += [metric for name in names if (metric := self.names.metric(name)) is not None]
            metrics += [] if logged is None else logged.shown_metrics
            for record in map(self._watch.record_of, metrics):
                record.is_forwarded |= first.kind == "forward"
                # what the program has written to is no longer the value of the metric
                if first.kind in ("metric", "compute") and not key.is_written:
                    record.is_shown, record.is_composed = True, record.is_composed or first.is_composed

    def _meet(self, label: str, message: Message, sources: Mapping[str, LocalSource], wants: Wants) -> Meeting:
        with refusing(self._run.settings):
            return self._synchronizer.sync(label, message, sources, wants)

    def _recompute(self, epoch: RunningEpoch, keys: Sequence[KeyView]) -> list[KeyView]:
        """Let metrics that keep no rows say what the epoch's value is, where keys show something else.

        That makes metrics combine ranks by themselves, so it is done where the number is replaced, or on one device.
        """
        alone = self._run.world_size == 1
        # metrics are about to combine ranks by themselves, so all ranks must be here
        if not alone and any(map(_can_recompute, keys)):
            self.judgement.confirm()
        records = epoch.record.keys
        return [
            replace(key, recomputed=records[key.first.storage].history.recompute(alone)) if _can_recompute(key) else key
            for key in keys
        ]

    def _remember(self, epoch: RunningEpoch) -> None:
        self.known_values.remember(epoch.local, epoch.sources, epoch.record)

    # --- the end of an epoch ----------------------------------------------------------------------------------

    def end(self) -> None:
        """Lightning has computed every number of the epoch."""
        self.known_values.clear()
        self.states.clear()
        epoch = self._running.pop(_compat.stage_name(self._run.trainer) or "", None)
        if epoch is None:
            return
        self._numbers.discard(epoch.record.epoch)
        epoch.is_complete = True
        epoch.keys = list(self._with_computed(epoch))
        self.judgement.conclude(epoch)

    def _with_computed(self, epoch: RunningEpoch) -> Iterator[KeyView]:
        """The keys with what Lightning computed, where the guard put nothing in its place."""
        results = _compat.results_of(self._run.trainer) or {}
        for key in epoch.keys:
            # where the guard has replaced numbers, what Lightning computed is no longer the program's
            result = None if self._run.settings.corrects else results.get(key.first.storage)
            computed = _compat.result_computed(result) if result is not None else None
            yield key if computed is None else replace(key, computed=float(computed))

    # --- one metric -------------------------------------------------------------------------------------------

    def meet_for(self, record: MetricRecord, epoch: RunningEpoch) -> SourceView:
        """A metric that was fed after the batches: all ranks compute it now, as they would without the guard."""
        local = self._finder.of_metric(record, epoch.record)
        label = f"{epoch.record.stage}/compute/{local.name}"
        message = self._collector.message(epoch, [])
        meeting = self._meet(label, message, {local.name: local}, lambda *_: True)
        epoch.local[local.name] = local
        epoch.sources.update(meeting.sources)
        self._remember(epoch)
        self.judgement.confirm()
        return epoch.sources[local.name]


def _can_recompute(key: KeyView) -> bool:
    """Whether the metric of a key, which keeps no rows, can compute the value of the epoch on every rank."""
    able = len(key.present) == key.world_size and all(facts.whole for facts in key.present)
    return able and key.is_shared and key.is_no_mean
