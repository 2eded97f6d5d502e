"""Code, name and advice of the rules that source alone can show: one text for the run and for the lint.

Nothing is imported that needs torch, so that the lint starts at once.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Advice:
    """What a finding says of its rule, whoever makes it.

    Attributes:
        code: The rule's.
        slug: The rule's short name.
        severity: ``"error"``, ``"warning"`` or ``"note"``, before any effect is known.
        fix: What to type instead.
    """

    code: str
    slug: str
    severity: str
    fix: str


LRG101 = Advice(
    "LRG101",
    "batch-size-times-world-size",
    "warning",
    "Pass the number of samples in this rank's own batch, such as batch_size=float(len(labels)).",
)
LRG201 = Advice(
    "LRG201",
    "gathered-before-sync",
    "error",
    "Pass each rank's own rows, or build the metric with sync_on_compute=False.",
)
LRG202 = Advice("LRG202", "synced-twice", "error", "Drop sync_dist and reduce_fx, or log the metric.")
LRG203 = Advice(
    "LRG203",
    "never-synced",
    "error",
    "Log the metric object, or pass sync_dist=True.",
)
LRG203_AT_END = "Log the metric object, or compute() of a metric that combines ranks."
LRG204 = Advice("LRG204", "rank-zero-sync", "error", "Drop rank_zero_only.")
LRG207 = Advice("LRG207", "sync-in-step", "note", "Update in the step, and log the metric object.")
LRG301 = Advice(
    "LRG301",
    "restarting-query-ids",
    "error",
    "Pass ids that are unique over the epoch, such as the index in the dataset.",
)
LRG302 = Advice("LRG302", "mean-of-batches", "error", "Update the metric in the step, and log the metric object.")
LRG306 = Advice(
    "LRG306",
    "batch-as-one-query",
    "error",
    "Call it once for each query and take the mean, or use the metric of the same name with indexes.",
)
LRG405_IN_CALLBACK = "Make it an attribute of the module, or move it to pl_module.device in setup()."
LRG405 = Advice(
    "LRG405",
    "unregistered-metric",
    "warning",
    "Make it an attribute of the module, or hold it in a ModuleDict, ModuleList or MetricCollection.",
)

STATIC = {own.code: own for own in (LRG101, LRG201, LRG202, LRG203, LRG204, LRG207, LRG301, LRG302, LRG306, LRG405)}
"""The rules that the lint finds too, by code."""
