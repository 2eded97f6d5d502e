"""The verdict on a document: every rule once, those that look for the rest after the others."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from lightning_retrieval_guard.rules import REGISTRY

if TYPE_CHECKING:
    from lightning_retrieval_guard.epoch.views import EpochView
    from lightning_retrieval_guard.findings import Finding
    from lightning_retrieval_guard.rules.base import Correction


def judge(epoch: EpochView) -> list[Finding]:
    """What all rules find in a document, ignored or not."""
    findings = [finding for rule in REGISTRY.values() if not rule.spec.follows_others for finding in rule.check(epoch)]
    explained = frozenset(text for finding in findings if finding.is_serious for text in (finding.target, finding.key))
    rest = replace(epoch, explained=explained)
    findings += [finding for rule in REGISTRY.values() if rule.spec.follows_others for finding in rule.check(rest)]
    return findings


def codes_of(correction: Correction) -> list[str]:
    """The rules that declare a correction."""
    return [code for code, rule in REGISTRY.items() if rule.spec.corrects == correction]
