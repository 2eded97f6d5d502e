"""What correct mode does about a document: which numbers take the place of logged ones."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from lightning_retrieval_guard import _compat
from lightning_retrieval_guard.epoch.views import EpochView, KeyView
from lightning_retrieval_guard.findings import Finding
from lightning_retrieval_guard.rules import REGISTRY
from lightning_retrieval_guard.run.context import Verdict
from lightning_retrieval_guard.run.epoch import RunningEpoch


@dataclass(frozen=True)
class Fixes:
    """What follows from the findings of a document.

    Attributes:
        values: For every storage key whose number is replaced Lightning's result and the reference.
        sorts: Whether the keys are put in one order.
        refused: Findings that no correction mends and that Lightning would hang or pair wrong numbers by.
    """

    values: dict[str, tuple[Any, Tensor]]
    sorts: bool = False
    refused: Sequence[Finding] = ()

    def install(self, results: Any) -> None:
        """Do it; calls nothing that could fail on one rank alone."""
        if self.sorts:
            _compat.sort_results(results)
        for result, value in self.values.values():
            _compat.install_result(result, value)


def find_fixes(
    results: Any, epoch: EpochView, new: Iterable[KeyView], verdict: Verdict, left: Collection[str], device: Any
) -> Fixes:
    """The corrections that the rules declare, for the keys that are new since the last exchange.

    Args:
        results: Lightning's results by storage key.
        epoch: The document.
        new: The keys.
        verdict: The findings of the document.
        left: Log calls and metrics whose numbers stay with the program.
        device: Of the module.
    """
    faulty = {finding.target for finding in verdict.reported if finding.corrects == "value" and finding.is_serious}
    # numbers of an earlier exchange are in Lightning's results already
    values = {}
    for key in new:
        storage, result = key.first.storage, results.get(key.first.storage)
        value = None if is_left(key, left) else _replacement(key, storage in faulty)
        if value is not None and result is not None:
            values[storage] = (result, _like(result, value, key, device))
    urgent = [finding for finding in verdict.reported if REGISTRY[finding.code].spec.precedes_reduction]
    refused = [finding for finding in urgent if finding.is_serious and finding.corrects is None]
    return Fixes(values, any(finding.corrects == "order" for finding in urgent), refused)


def merged_targets(epoch: EpochView) -> set[str]:
    """The metrics that keep states and whose states were merged, and the log calls of these metrics."""
    merged = {states.name for states in epoch.states if states.is_wanted and not states.problem}
    # a value that was logged in a step was taken before the states were merged
    keys = (key for key in epoch.keys if key.first.shows_object and merged & {*key.first.shows})
    return merged | {key.first.storage for key in keys}


def compose(epoch: RunningEpoch, key: KeyView) -> KeyView:
    """The key of a composition, with what it comes to of the values of its parts."""
    record = epoch.record.keys.get(key.first.storage)
    metric = None if record is None or record.shown is None else record.shown.metric()
    parts = [(epoch.local[part.name].metric, part) for part in key.parts if part.name in epoch.local]

    def of(values: Sequence[float | None]) -> float | None:
        value_of_part = {id(part): value for (part, _), value in zip(parts, values, strict=True)}
        try:
            value = _compat.composed_value(metric, value_of_part)
        except LookupError:
            return None
        return float(value) if isinstance(value, Tensor) and value.numel() == 1 else None

    # without a guard a part that combines no ranks is another number on each of them
    plain = of([part.as_combined if part.synchronises else None for _, part in parts])
    return replace(key, composed=of([part.value for _, part in parts]), composed_plain=plain)


def composed_targets(epoch: EpochView, left: Collection[str]) -> set[str]:
    """The log calls of compositions, a part of which comes to the reference."""
    keys = (key for key in epoch.keys if key.replaced and not is_left(key, left))
    return {key.first.storage for key in keys if any(part.outcome.value is not None for part in key.parts)}


def is_left(key: KeyView, left: Collection[str]) -> bool:
    """Whether a key's number stays with the program."""
    return key.first.storage in left or any(source.name in left for source in key.sources)


def _replacement(key: KeyView, is_faulty: bool) -> float | None:
    """The reference, where the number is known to be wrong or comes from rows that the guard combines."""
    first, reference = key.first, key.reference
    if reference is None or not key.is_shared:
        return None
    if not key.shows_source:
        return reference if is_faulty else None
    assert key.source is not None
    # the program's way of combining stands until its number is known to be wrong
    if key.source.syncs_itself and first.kind in ("metric", "compute"):
        return reference if is_faulty else None
    # on one device the program's number is the reference already
    local = key.world_size == 1 and not key.source.plan.ids_restart and not key.source.holds_others
    as_logged = local and (first.kind == "metric" or not first.in_step)
    return None if as_logged else reference


def _like(result: Any, value: float, key: KeyView, device: Any) -> Tensor:
    if key.first.value is not None:
        old = _compat.result_value(result)
        return torch.tensor(value, dtype=old.dtype, device=old.device)
    dtype = key.source.dtype if key.source is not None else None
    return torch.tensor(value, dtype=dtype or _compat.default_dtype(), device=device)


def mark_corrected(findings: Iterable[Finding], installed: Collection[str], ordered: bool) -> list[Finding]:
    """The findings, each with whether what it reports was put right."""
    return [
        replace(finding, corrected=True) if _is_mended(finding, installed, ordered) else finding for finding in findings
    ]


def _is_mended(finding: Finding, installed: Collection[str], ordered: bool) -> bool:
    if not finding.is_serious:
        return False
    if finding.corrects == "order":
        return ordered or finding.target in installed
    return finding.corrects in ("value", "stale_state", "foreign_state") and finding.target in installed
