"""A metric is no part of the module."""

from __future__ import annotations

from dataclasses import replace

import pytest

from lightning_retrieval_guard.epoch.facts import Unregistered
from lightning_retrieval_guard.epoch.views import KeyView, unregistered_of
from lightning_retrieval_guard.findings import Severity

from .factories import LINE, PATH, at_end, findings_of, stage, the_finding

HELD = Unregistered("metrics['mrr']", "RetrievalMRR", "src/metrics.py", 7, ranks=(0, 1))
APART = replace(HELD, device="cpu", module_device="cuda:0")


def test_where_the_module_is_it_is_a_note_at_the_first_update() -> None:
    [finding] = findings_of("LRG405", stage(world_size=2, unregistered=[HELD]))
    assert (finding.severity, finding.key, finding.hook) == (Severity.NOTE, "metrics['mrr']", "update")
    assert (finding.path, finding.line, finding.ranks) == ("src/metrics.py", 7, (0, 1))
    assert finding.text() == (
        "LRG405 unregistered-metric: RetrievalMRR \"metrics['mrr']\" is no part of the module, so Lightning neither"
        " moves nor saves it. Make it an attribute of the module, or hold it in a ModuleDict, ModuleList or"
        " MetricCollection."
    )


def test_elsewhere_it_is_a_warning_that_names_both_devices() -> None:
    [finding] = findings_of("LRG405", stage(world_size=2, unregistered=[APART]))
    assert (finding.severity, finding.corrected) == (Severity.WARNING, False)
    assert finding.message.endswith(" saves it. It is on cpu, the module is on cuda:0.")


def test_a_metric_that_was_moved_is_corrected() -> None:
    [finding] = findings_of("LRG405", stage(world_size=2, unregistered=[replace(APART, moved=True)]))
    assert (finding.severity, finding.corrected) == (Severity.WARNING, True)
    assert finding.message.endswith(" It was on cpu, the module is on cuda:0.")


def test_a_key_that_shows_it_is_the_place() -> None:
    key_facts = at_end(0.5, "val_mrr")
    metric = replace(APART, storage=key_facts.storage, ranks=(1,))
    finding = the_finding("LRG405", stage(KeyView((key_facts, key_facts)), unregistered=[metric]))
    assert (finding.key, finding.path, finding.line, finding.ranks) == ("val_mrr", PATH, LINE, (1,))
    assert finding.severity is Severity.WARNING
    assert finding.message.startswith("'val_mrr' shows RetrievalMRR \"metrics['mrr']\", which is no part of the module")


def test_a_key_that_is_not_judged_is_no_place() -> None:
    metric = replace(HELD, storage="validation_step.other")
    [finding] = findings_of("LRG405", stage(KeyView((at_end(0.5),)), unregistered=[metric]))
    assert finding.key == "metrics['mrr']"


def test_a_metric_in_an_unknown_place_has_the_name_of_its_class() -> None:
    [finding] = findings_of("LRG405", stage(world_size=2, unregistered=[replace(HELD, name="RetrievalMRR")]))
    assert finding.key == "RetrievalMRR"
    assert finding.message.startswith("RetrievalMRR is no part of the module")


def test_a_callback_can_only_move_it() -> None:
    [finding] = findings_of("LRG405", stage(world_size=2, unregistered=[replace(APART, of_callback=True)]))
    assert finding.fix == "Move it in a start hook of the callback: metric.to(pl_module.device)."


def test_without_such_a_metric_it_is_silent() -> None:
    assert not findings_of("LRG405", stage(KeyView((at_end(0.5),))))


REPORTED = {"name": "metrics[0]", "metric": "MeanMetric", "path": "m.py", "line": 3}


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
def test_what_is_worse_and_what_a_later_meeting_tells_stays(order: tuple[int, int]) -> None:
    apart = {**REPORTED, "device": "cpu", "module_device": "cuda:1"}
    ranks = [{"unregistered": [(REPORTED, apart)[one]]} for one in order]
    later = [{"unregistered": [{**REPORTED, "storage": "end.mean"}]}, {}]
    [merged] = unregistered_of([ranks, later])
    assert merged == Unregistered(**{**apart, "storage": "end.mean"}, ranks=(0, 1))


def test_metrics_that_were_updated_in_other_lines_are_others() -> None:
    both = [{"unregistered": [REPORTED, {**REPORTED, "line": 4}]}]
    assert [(entry.line, entry.ranks) for entry in unregistered_of([both])] == [(3, (0,)), (4, (0,))]
