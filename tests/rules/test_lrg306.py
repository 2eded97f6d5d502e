"""A functional retrieval metric that scored a batch as one query."""

from lightning_retrieval_guard.epoch.facts import FlattenedCall
from lightning_retrieval_guard.findings import Severity

from .factories import LINE, PATH, findings_of, stage, the_finding


def test_it_tells_shape_and_function() -> None:
    call = FlattenedCall("retrieval_normalized_dcg", (4, 8), "validation_step", PATH, LINE, ranks=(0, 1))
    finding = the_finding("LRG306", stage(world_size=2, flattened=(call,)))
    assert (finding.severity, finding.ranks, finding.effect) == (Severity.ERROR, (0, 1), None)
    assert finding.text() == (
        "LRG306 batch-as-one-query: retrieval_normalized_dcg got scores of shape (4, 8) and scored 4 queries as the 32"
        " rows of one. Call it once for each query and take the mean, or use the metric of the same name with indexes."
    )


def test_an_epoch_without_such_calls_is_silent() -> None:
    assert not findings_of("LRG306", stage(world_size=2))
