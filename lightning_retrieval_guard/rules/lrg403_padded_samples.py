"""LRG403 padded-samples

## What it flags
An evaluation whose distributed sampler repeated samples, so that every rank gets as many. Also an iterable data set
whose last ranks end on the first samples of the first ranks. Not reported where query ids of the data show that no
sample was fed twice.

## Why it is wrong
With 7 samples on 2 ranks one sample weighs double. A query that is repeated has all its rows twice, the relevant ones
too.

## Example
    trainer = Trainer(devices=2)
    trainer.test(model, DataLoader(dataset, batch_size=2))  # 7 samples

## Use instead
One device for final numbers, or a data set whose size the number of devices divides.

    trainer = Trainer(devices=1)
    trainer.test(model, DataLoader(dataset, batch_size=2))

## What correct mode does
It counts a repeated sample once, where it finds it: exactly one sample of a rank's last batch has the rows of one in
the first batch of the other rank. A metric without rows is updated beside the program without the sample, and a plain
mean over samples, such as a loss, is taken apart, if both ranks have the same for it. Otherwise the number stays; for a
mean the message says how far off it can be. It also stays where the repeated sample is a candidate of every query.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from lightning_retrieval_guard.findings import Finding, Severity, show_number
from lightning_retrieval_guard.report.text import several
from lightning_retrieval_guard.rules.base import Rule, RuleSpec
from lightning_retrieval_guard.rules.lrg203_never_synced import is_lone_object, is_lone_value

if TYPE_CHECKING:
    from lightning_retrieval_guard.epoch.repeated_samples import Repeated
    from lightning_retrieval_guard.epoch.states import StateView
    from lightning_retrieval_guard.epoch.views import EpochView, KeyView


class PaddedSamples(Rule):
    """The sampler or the data set repeated samples."""

    spec = RuleSpec(
        "LRG403",
        "padded-samples",
        Severity.WARNING,
        "Use a dataset whose size the world size divides, or one device for final numbers.",
        corrects="value",
    )

    def check(self, epoch: EpochView) -> Iterator[Finding]:
        # in training every sample comes again anyway
        if not epoch.repeated.count or epoch.stage == "train":
            return
        for key in epoch.keys:
            plans = [source.plan for source in key.sources]
            is_fed_once = _shows_shard(key) or (bool(plans) and all(plan.has_no_repeated for plan in plans))
            shows_value = key.first.shows_object or key.recomputed is not None
            states_shown = epoch.states_of(key) if shows_value and not plans else []
            is_same = bool(states_shown) and all(map(_are_extremes, states_shown))
            if epoch.repeated_at(key).count and not is_fed_once and not is_same:
                yield self._of_key(epoch, key, epoch.repeated_at(key))
        twice = _twice(epoch, epoch.repeated)
        for source in epoch.sources:
            plan = source.plan
            if not epoch.keys_of(source) and plan.has_rows and not (plan.has_no_repeated or plan.replicated):
                message = f"{source.metric} {source.name!r} counts {twice}"
                yield self.at_update(epoch, source, message, ranks=range(epoch.world_size))
        shown = {name for key in epoch.keys for name in key.first.shows}
        for states in epoch.states:
            if states.counts_once and states.name not in shown and not _are_extremes(states):
                message = f"{states.metric} {states.name!r} counts {twice}"
                yield self.at_update(epoch, states, message, ranks=states.ranks)

    def _of_key(self, epoch: EpochView, key: KeyView, repeated: Repeated) -> Finding:
        twice = _twice(epoch, repeated)
        if unknown := _why_unknown(epoch, key):
            said = f"'{key.first.name}' may count {twice} {unknown}"
            return self.at_key(epoch, key, said, severity=Severity.NOTE, is_mended=False)
        message = f"'{key.first.name}' counts {twice}"
        if problems := [states.problem for states in epoch.states_of(key) if states.problem]:
            message += f" It stays: {problems[0]}."
        elif any(source.plan.lists_repeated for source in key.sources):
            message += " It stays: a repeated sample is among the candidates of all queries too."
        if bound := _bound(key, repeated.count):
            message += f" As a mean over samples, none of them negative, it is off by at most {show_number(bound)}."
        by_rows = [source.plan.left_out == repeated.count for source in key.sources]
        by_states = [epoch.leaves_out_repeated(key)] if epoch.states_of(key) or not by_rows else []
        counted_once = bool(key.repeated) or all(by_rows + by_states)
        shown = epoch.states_of(key) if key.first.shows_object else []
        may_count_once = all(_may_count_once(states, repeated.count) for states in shown)
        can = counted_once or (bool(shown) and all(by_rows) and may_count_once)
        option = "mode='correct', " if can and key.first.storage not in epoch.corrected else ""
        fix = f"Use {option}a dataset whose size the world size divides, or one device for final numbers."
        is_known = counted_once and bool(key.repeated or key.source or key.recomputed is not None)
        return self.at_key(
            epoch, key, message, fix=fix, effect=key.effect if is_known else None, is_mended=counted_once
        )


def _shows_shard(key: KeyView) -> bool:
    """Whether it is what a metric without rows comes to on rank 0 alone, so that no sample is in it twice."""
    return is_lone_object(key) or (key.source is None and key.first.shows_object and is_lone_value(key))


def _are_extremes(states: StateView) -> bool:
    """Whether the metric holds nothing but a largest or smallest value, which no sample changes that comes twice."""
    return all(facts.extremes for facts in states.present)


def _may_count_once(states: StateView, repeated: int) -> bool:
    """Whether correct mode counts the repeated samples of the dataloader that fed a metric once."""
    return states.counts_once or sum(facts.fed_repeated for facts in states.present) == repeated


def _counts_in_no_metric(epoch: EpochView) -> bool:
    """Whether every metric that was fed a repeated sample was corrected, and there is one."""
    states = [one for one in epoch.states if one.repeated and not _are_extremes(one)]
    if any(one.may_count_once != one.counts_once or (one.leaves_out and one.problem) for one in states):
        return False
    storages = [{source.name, *(key.first.storage for key in epoch.keys_of(source))} for source in epoch.sources]
    by_rows = [bool(names & epoch.corrected) for names in storages]
    by_states = [one.name in epoch.corrected for one in states if one.leaves_out]
    all_left_out = all(source.plan.left_out == epoch.repeated.count for source in epoch.sources)
    return all_left_out and bool(by_rows + by_states) and all(by_rows + by_states)


def _why_unknown(epoch: EpochView, key: KeyView) -> str:
    """Why nothing shows whether a repeated sample is in a number twice, if so."""
    if not key.sources and not key.first.in_step and key.first.kind == "plain":
        if _counts_in_no_metric(epoch):
            return "It does not if it was made of metrics, which count it once here."
        return "Nothing tells what it was made of."
    if not key.sources and _is_same_on_each_rank(key):
        return "Each rank comes to it alone, and nothing tells whether the program left it out."
    if key.sources and all(source.plan.replicated for source in key.sources):
        return "All ranks hold the same rows, and nothing tells whether the program left it out of them."
    return ""


def _is_same_on_each_rank(key: KeyView) -> bool:
    """Whether a metric combines no ranks, which have one number all the same: perhaps that of the whole data set."""
    if key.first.kind == "metric":
        return all(facts.of_shard is not None for facts in key.present) and not is_lone_object(key)
    return key.first.kind == "compute" and not key.first.in_step and not key.first.synced and key.ranks_agree


def _bound(key: KeyView, repeated: int) -> float | None:
    """How far a mean over samples can be off, none of which is negative; ``None`` where that is not known.

    A sample has no more than the whole batch that it came in, on either rank.
    """
    first = key.first
    if key.repeated or first.kind != "plain" or first.reduction != "mean" or not key.is_shared or None in key.facts:
        return None
    most = []
    for facts in key.present:
        first_batch = None if facts.last_of is None else key.present[facts.last_of].first_batch
        if first_batch is not None and facts.last_batch is not None:
            most.append(min(first_batch, facts.last_batch))
    samples, mean = key.total("weight") + key.total("lacks_weight"), key.by_samples
    if len(most) != repeated or min(most) < 0 or samples <= repeated:
        return None
    total, once = mean * samples, samples - repeated
    return max(total / once - mean, mean - (total - sum(most)) / once)


def _twice(epoch: EpochView, repeated: Repeated) -> str:
    them = "it" if repeated.count == 1 else "them"
    return (
        f"{several(repeated.count, 'sample')} twice: the {repeated.by} repeated {them} to give"
        f" {several(epoch.world_size, 'rank')} the same number."
    )
