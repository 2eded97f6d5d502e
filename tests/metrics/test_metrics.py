"""A cut of `make metrics`: metrics with every kind of state, on two ranks in every layout."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

import pytest

from tests.distributed.harness import Pool

from .catalogue import catalogue
from .page import PAGE
from .runs import verdicts

# torchmetrics tells of the memory that metrics take, of samples without a class and the like
pytestmark = [pytest.mark.timeout(120), pytest.mark.filterwarnings("ignore")]

# sums, maxima, means over ranks, lists with and without a reduction, stacked tensors, and metrics in metrics
CUT = (
    *("CatMetric", "MeanMetric", "MaxMetric", "BinaryF1Score", "BinaryAUROC", "MulticlassROC", "PearsonCorrCoef"),
    *("SpearmanCorrCoef", "NormalizedRootMeanSquaredError", "CalinskiHarabaszScore", "ROUGEScore", "BLEUScore"),
    *("PeakSignalNoiseRatio", "LipVertexError", "FrechetInceptionDistance", "RetrievalMRR"),
    *("MinMaxMetric", "ClasswiseWrapper", "MultioutputWrapper", "MultitaskWrapper"),
)


@pytest.mark.parametrize("layout", ["even", "uneven", "empty", "skipped"])
def test_unequal_ranks_show_the_number_of_one_process(pools: Mapping[int, Pool], layout: str) -> None:
    assert verdicts(pools[2], CUT, layout, "correct", 60) == dict.fromkeys(CUT, "right")


def test_the_page_has_every_class_that_torchmetrics_exports() -> None:
    rows = Counter(line.split(" | ")[0].removeprefix("| ") for line in PAGE.read_text(encoding="utf-8").splitlines())
    assert all(rows[f"{entry.package}.{entry.name}"] == 1 for entry in catalogue().values())


def test_few_classes_are_not_tried_and_each_has_a_reason() -> None:
    reasons = Counter(entry.without for entry in catalogue().values() if entry.without)
    assert set(reasons) <= {
        "holds metrics, and is none",
        "a base class",
        "the last updates have no order over ranks",
        "draws samples at random",
        "draws subsets at random",
        "shuffles at random",
        "needs a model that is downloaded",
        "needs a package that is not installed",
    }
    assert reasons.total() < 40
