"""The specifications of the rules that source alone can show, and what the lint says in place of their fix."""

from __future__ import annotations

from lightning_retrieval_guard.rules import REGISTRY
from lightning_retrieval_guard.rules.spec import RuleSpec

STATIC: dict[str, RuleSpec] = {code: rule.spec for code, rule in REGISTRY.items() if rule.spec.static}
"""The rules that the lint finds too, by code."""

LRG101, LRG201, LRG202, LRG203, LRG204, LRG207, LRG301, LRG302, LRG306, LRG405 = STATIC.values()

LRG203_AT_END = "Log the metric object, or compute() of a metric that combines ranks."
LRG405_IN_CALLBACK = "Make it an attribute of the module, or move it to pl_module.device in setup()."
