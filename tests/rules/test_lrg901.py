"""The guard failed and stepped aside."""

from lightning_retrieval_guard.epoch.views import KeyView
from lightning_retrieval_guard.findings import Severity
from lightning_retrieval_guard.rules import REGISTRY

from .factories import findings_of, stage, steps


def test_no_stage_shows_it() -> None:
    assert not findings_of("LRG901", stage(KeyView((steps((1.0, 2, 2)),))))
    assert REGISTRY["LRG901"].severity is Severity.WARNING
