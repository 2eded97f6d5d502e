"""LRG405 unregistered-metric

## What it flags
A torchmetrics metric that is updated or logged and does not belong to the module. It is in a plain dict or list, in a
global or a closure, or held by a callback. A metric that is made in a step or at the end of an epoch is not reported.
The finding is a note while the metric is on the module's device; if a callback holds it, it is not reported then.

## Why it is wrong
Lightning moves and saves what the module holds. Such a metric stays on the CPU while its inputs are on another device,
its states cannot travel over NCCL, and a checkpoint leaves it out. Logging the metric object raises in Lightning.

## Example
    def __init__(self):
        super().__init__()
        self.metrics = {"mrr": RetrievalMRR()}

## Use instead
    def __init__(self):
        super().__init__()
        self.metrics = torch.nn.ModuleDict({"mrr": RetrievalMRR()})

## What correct mode does
It moves the metric to the module's device before an update, where all tensors of that update are there already. It
does not make checkpoints hold it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING

from lightning_retrieval_guard.findings import Finding, Severity
from lightning_retrieval_guard.rules.base import Rule, RuleSpec

if TYPE_CHECKING:
    from lightning_retrieval_guard.epoch.facts import Unregistered
    from lightning_retrieval_guard.epoch.views import EpochView


class UnregisteredMetric(Rule):
    """A metric is no part of the module."""

    spec = RuleSpec(
        "LRG405",
        "unregistered-metric",
        Severity.WARNING,
        "Make it an attribute of the module, or hold it in a ModuleDict, ModuleList or MetricCollection.",
        corrects="device",
        static=True,
    )

    def check(self, epoch: EpochView) -> Iterator[Finding]:
        for metric in epoch.unregistered:
            severity = Severity.WARNING if metric.device else Severity.NOTE
            key = next((key for key in epoch.keys if key.first.storage == metric.storage), None)
            what = f"{metric.metric} {metric.name!r}" if metric.name != metric.metric else metric.metric
            message = _message(metric, what if key is None else f"'{key.first.name}' shows {what}, which")
            fix, ranks = self._fix(metric), metric.ranks
            if key is None:
                finding = self.at_update(epoch, metric, message, fix=fix, ranks=ranks, severity=severity)
            else:
                finding = self.at_key(epoch, key, message, fix=fix, ranks=ranks, severity=severity)
            yield replace(finding, corrected=metric.moved)

    def _fix(self, metric: Unregistered) -> str:
        if metric.of_callback:
            return "Move it in a start hook of the callback: metric.to(pl_module.device)."
        return self.spec.fix


def _message(metric: Unregistered, what: str) -> str:
    text = f"{what} is no part of the module, so Lightning neither moves nor saves it."
    if not metric.device:
        return text
    was = "was" if metric.moved else "is"
    return f"{text} It {was} on {metric.device}, the module is on {metric.module_device}."
