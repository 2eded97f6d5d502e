"""From what all ranks told to findings, and to the numbers that take the place of wrong ones."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import fields, replace
from typing import Any, NamedTuple

import torch

from lightning_retrieval_guard import _compat
from lightning_retrieval_guard.epoch.facts import KeyFacts, LogCall, SourceMetricFacts, SourceView, WeightCounts
from lightning_retrieval_guard.epoch.row_facts import RowFacts
from lightning_retrieval_guard.epoch.views import KeyView, StageView
from lightning_retrieval_guard.findings import Finding, Numbers, Severity
from lightning_retrieval_guard.report.contents import RowCounts, StageCounts
from lightning_retrieval_guard.rules import REGISTRY
from lightning_retrieval_guard.run.suppression_filter import is_enabled
from lightning_retrieval_guard.run.synchronize import Message
from lightning_retrieval_guard.settings import Settings
from lightning_retrieval_guard.watch.call_site import CallSite, names_device_count
from lightning_retrieval_guard.watch.keys import KeyRecord
from lightning_retrieval_guard.watch.suppressions import patterns_of


def collect_key(
    key: KeyRecord, result: Any | None, source: str | None, behind: SourceMetricFacts | None = None
) -> KeyFacts:
    """What this rank tells of one of its keys; reads the running sums, so it is for the end of an epoch."""
    weights = key.weights
    value = weight = None
    if result is not None and key.kind != "metric":
        value = float(_compat.result_value(result))
        summed = _compat.result_weight(result)
        weight = None if summed is None else float(summed)
    call, counts = _fields(LogCall, key), _fields(WeightCounts, weights)
    if result is not None and not _compat.FLOORED_WEIGHTS.shown_by(_compat.lightning_of(result)):
        counts["integral"] = False
    site = CallSite(key.path, key.line)
    return KeyFacts(
        **{**call, "kind": "plain"} if key.mixed else call,
        **counts,
        **vars(behind if behind is not None and not key.mixed else SourceMetricFacts()),
        calls=key.calls,
        mixed=key.mixed,
        synced=key.synced,
        source=None if key.mixed else source,
        value=value,
        weight=weight,
        names_devices=bool(weights.times_world or weights.times_world_nominal) and names_device_count(site),
        lacks_value=float(weights.value),
        lacks_weight=float(weights.weight),
        suppressed=patterns_of(key.suppressed),
    )


def _fields(part: type, whole: Any) -> dict[str, Any]:
    """The fields that ``whole`` has from the dataclass ``part``."""
    return {field.name: getattr(whole, field.name) for field in fields(part)}


def view_keys(
    stage: str, messages: Sequence[Message], sources: Mapping[str, SourceView], corrects: bool
) -> list[KeyView]:
    """The keys of all ranks, in the order of the lowest rank that logged them."""
    told = [{key.storage: key for key in map(KeyFacts.from_payload, message["keys"])} for message in messages]
    storages = dict.fromkeys(storage for own in told for storage in own)
    idle = frozenset(rank for rank, message in enumerate(messages) if not message["batches"])
    views = []
    for storage in storages:
        facts = tuple(own.get(storage) for own in told)
        view = KeyView(facts, _source_of(facts, sources), evaluates=stage != "train", idle=idle)
        view.replaced = corrects and _is_replaced(view)
        views.append(view)
    return views


def _source_of(facts: Sequence[KeyFacts | None], sources: Mapping[str, SourceView]) -> SourceView | None:
    """The rows behind a key, under the name that the lowest rank has for them."""
    if any(own is not None and own.mixed for own in facts):
        return None
    names = [own.source for own in facts if own is not None and own.source is not None]
    found = [sources[name] for name in dict.fromkeys(names) if name in sources]
    # where some ranks show a part of a metric's rows and others all of them, nothing is known of them together
    return None if not found or (len(found) > 1 and any(own.shared for own in found)) else found[0]


def _is_replaced(key: KeyView) -> bool:
    """Whether the guard in correct mode computes in place of the metric behind the key."""
    if key.source is None or key.world_size > 1:
        return key.world_size > 1
    return key.source.plan.restarting and not key.first.in_step


def order_of_reductions(message: Message) -> list[str]:
    """The storage keys of one rank that Lightning combines over ranks, in order of logging."""
    keys = map(KeyFacts.from_payload, message["keys"])
    return [key.storage for key in keys if not key.own_group and _is_combined(key)]


def _is_combined(key: KeyFacts) -> bool:
    return key.synced if key.kind == "metric" else key.sync_dist and not key.rank_zero_only


def judge(stage: StageView, settings: Settings, before_reduction: bool = False) -> list[Finding]:
    """Ask the rules that may speak and need not hear the others first.

    Args:
        stage: What all ranks told.
        settings: Say which rules may speak.
        before_reduction: Ask only the rules that must speak before Lightning combines ranks.
    """
    rules = [rule for code, rule in REGISTRY.items() if settings.allows(code) and not rule.after_others]
    asked = [rule for rule in rules if rule.before_reduction or not before_reduction]
    return [finding for rule in asked for finding in rule.check(stage)]


def judge_at_end(stage: StageView, settings: Settings) -> list[Finding]:
    """Ask all rules that may speak; those that come after the others also hear of the rules that may not."""
    found = [finding for rule in REGISTRY.values() if not rule.after_others for finding in rule.check(stage)]
    heard = replace(stage, found=found)
    last = [finding for rule in REGISTRY.values() if rule.after_others for finding in rule.check(heard)]
    return [finding for finding in (*found, *last) if settings.allows(finding.code)]


def serious(findings: Iterable[Finding]) -> list[Finding]:
    """The findings that change a number, or stop the run."""
    return [finding for finding in findings if finding.severity is not Severity.NOTE]


class Correction(NamedTuple):
    """The reference for the place of a logged number."""

    key: KeyView
    result: Any
    value: torch.Tensor


def corrections(results: Any, keys: Iterable[KeyView], settings: Settings, module: Any) -> list[Correction]:
    """The reference for every logged number that is known to be wrong or comes from rows."""
    found = []
    for key in keys:
        value = _correction(key, settings)
        result = results.get(key.first.storage)
        if value is not None and result is not None:
            found.append(Correction(key, result, _like(result, value, key, module)))
    return found


def _correction(key: KeyView, settings: Settings) -> float | None:
    first, reference = key.first, key.reference
    if reference is None or key.left_alone or not key.is_shared:
        return None
    if key.shows_source:
        assert key.source is not None
        alone = key.world_size == 1 and not key.source.plan.restarting
        local = alone and not key.source.holds_others and not key.as_declared
        as_logged = local and (first.kind == "metric" or not first.in_step)
        return None if as_logged else reference
    absent = len(key.present) < key.world_size
    return reference if absent or any(is_enabled(code, key, settings) for code in _faults(key)) else None


def _faults(key: KeyView) -> list[str]:
    """The rules that say the plain value is wrong, and whose correction is certain."""
    effect = key.effect
    if effect is None or effect.is_nil:
        return []
    first = key.first
    if key.asked is not None:
        return [key.asked_by] if key.asked_by else []
    faults: list[str] = [key.weight_fault] if key.weight_fault else []
    if key.floor_effect is not None:
        faults.append("LRG104")
    if first.sync_dist and first.rank_zero_only:
        faults.append("LRG204")
    elif key.is_lone_value:
        faults.append("LRG203")
    if first.synced and key.is_reduced and first.reduction == "sum" and not first.in_step:
        faults.append("LRG202")
    return faults


def _like(result: Any, value: float, key: KeyView, module: Any) -> torch.Tensor:
    """The value as a tensor with dtype and device of what it replaces."""
    if key.first.value is not None:
        old = _compat.result_value(result)
        return torch.tensor(value, dtype=old.dtype, device=old.device)
    table = key.source.local.table if key.source is not None else None
    dtype = table.preds.dtype if table is not None else _compat.default_dtype()
    return torch.tensor(value, dtype=dtype, device=module.device)


def numbers_of(stage: StageView) -> dict[str, Numbers]:
    """Logged number and reference of every key, each where it is known."""
    return {
        key.first.name: Numbers(key.logged, key.reference if stage.knows_reference(key) else None, key.corrected)
        for key in stage.keys
    }


def counts_of(meetings: Sequence[Sequence[Message]]) -> StageCounts:
    """What each rank saw of a stage up to its last meeting."""
    metrics: dict[str, tuple[RowCounts, ...]] = {}
    for messages in meetings:
        for name in sorted({name for message in messages for name in message["sources"]}):
            metrics[name.removeprefix("key:")] = tuple(_row_counts(message, name) for message in messages)
    return StageCounts(tuple(message["samples"] for message in meetings[-1]), metrics)


def _row_counts(message: Message, name: str) -> RowCounts:
    source = message["sources"].get(name)
    if source is None:
        return RowCounts()
    facts = RowFacts.from_payload(message["rows"][source["rows"]])
    return RowCounts(facts.updates, facts.queries)
