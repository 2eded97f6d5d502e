"""The specifications of the rules that source alone can show."""

from __future__ import annotations

from lightning_retrieval_guard.rules import REGISTRY
from lightning_retrieval_guard.rules.base import RuleSpec

STATIC: dict[str, RuleSpec] = {code: rule.spec for code, rule in REGISTRY.items() if rule.spec.static}
"""The rules that the lint finds too, by code."""

LRG101, LRG201, LRG202, LRG203, LRG204, LRG207, LRG301, LRG302, LRG306, LRG405 = STATIC.values()
