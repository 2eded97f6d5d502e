"""The specifications of the rules that source alone can show."""

from __future__ import annotations

from lightning_retrieval_guard.findings import Severity
from lightning_retrieval_guard.rules import REGISTRY
from lightning_retrieval_guard.rules.spec import RuleSpec

LRG306 = RuleSpec(
    "LRG306",
    "batch-as-one-query",
    Severity.ERROR,
    "Call it once for each query and take the mean, or use the metric of the same name with indexes.",
    static=True,
)
_OF_THE_RUN = {code: rule.spec for code, rule in REGISTRY.items() if rule.spec.static}

STATIC: dict[str, RuleSpec] = dict(sorted({LRG306.code: LRG306, **_OF_THE_RUN}.items()))
"""The rules that the lint finds too, by code."""

LRG101, LRG201, LRG202, LRG203, LRG204, LRG207, LRG301, LRG302, LRG306, LRG405 = STATIC.values()
