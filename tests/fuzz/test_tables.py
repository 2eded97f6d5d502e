"""Random tables of rows, dealt to ranks and to updates in every way: the value of one device, or a finding."""

from __future__ import annotations

import math
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from torchmetrics.retrieval import (
    RetrievalAUROC,
    RetrievalFallOut,
    RetrievalHitRate,
    RetrievalMAP,
    RetrievalMRR,
    RetrievalNormalizedDCG,
    RetrievalPrecision,
    RetrievalRecall,
)

from lightning_retrieval_guard import Finding, GuardError, Severity

from .oracle import expected
from .tables import Case, Made, Shown, Table, Way

KINDS = (
    RetrievalMRR,
    RetrievalMAP,
    RetrievalPrecision,
    RetrievalRecall,
    RetrievalHitRate,
    RetrievalNormalizedDCG,
    RetrievalFallOut,
    RetrievalAUROC,
)
TOLERANCE = 1e-5
# Right numbers too are told of scores that ties or signs decide, and of samples that count twice.
WITHOUT_EFFECT = {"LRG205", "LRG303", "LRG304", "LRG403"}


@st.composite
def tables(draw: st.DrawFn) -> Table:
    """Samples of whole queries, of parts of a few, or of rows of any, each row with a score of its own."""
    world_size = draw(st.integers(1, 4))
    spread = draw(st.sampled_from(["own", "few", "any"]))
    sizes = draw(st.lists(st.integers(1, 4), min_size=1, max_size=8))
    order = draw(st.permutations(range(sum(sizes))))
    signed = draw(st.booleans())
    scores = iter([(index + 1) / (len(order) + 1) - 0.45 * signed for index in order])
    samples = []
    for number, size in enumerate(sizes):
        query = number if spread == "own" else draw(st.integers(-1, 2))
        ids = [draw(st.integers(0, 4)) if spread == "any" else query for _ in range(size)]
        samples.append(tuple((query_id, next(scores), draw(st.integers(0, 1))) for query_id in ids))
    owners = st.tuples(*(st.integers(0, world_size - 1) for _ in samples))
    return Table(
        samples=tuple(samples),
        world_size=world_size,
        deal=draw(st.sampled_from(["shards", "sampler", "copies"])),
        owner=draw(owners),
        batch_size=draw(st.integers(1, 4)),
        cut=draw(st.sampled_from(["batch", "sample", "halves", "relevant"])),
        ids=draw(st.sampled_from(["given", "given", "of batch", "of rank"])),
    )


@st.composite
def cases(draw: st.DrawFn) -> Case:
    aggregation = draw(st.sampled_from(["mean", "mean", "mean", "median", "max"]))
    arguments: dict[str, Any] = {
        "top_k": draw(st.sampled_from([None, 1, 2, 4])),
        "empty_target_action": draw(st.sampled_from(["neg", "pos", "skip"])),
        "aggregation": aggregation,
    }
    ways = ["object", "end", "forward"] + ["step"] * (aggregation == "mean")
    return Case(
        table=draw(tables().filter(lambda table: table.once)),
        metric=Made(draw(st.sampled_from(KINDS)), tuple(arguments.items())),
        ways=tuple(sorted(draw(st.sets(st.sampled_from(ways), min_size=1)))),
        sync_dist=draw(st.booleans()),
        scope=draw(st.sampled_from(["auto", "auto", "global", "batch"])),
    )


def is_any(value: float, wanted: list[float]) -> bool:
    return any(math.isclose(value, one, rel_tol=TOLERANCE, abs_tol=TOLERANCE) for one in wanted)


def wanted_by_way(case: Case) -> dict[Way, list[float]]:
    return {way: expected(case.table, case.metric, way, case.scope) for way in case.ways}


def is_serious(finding: Finding) -> bool:
    return finding.severity is not Severity.NOTE


def is_declared(case: Case, way: Way) -> bool:
    """Whether the number is wrong only by what was declared, of which there is no finding."""
    return case.scope == "batch" and way in ("object", "end")


@given(case=cases())
def test_correct_logs_what_one_device_would_have_logged(case: Case) -> None:
    plain, corrected, wanted = case.run(), case.run("correct"), wanted_by_way(case)
    if misses_a_key(corrected):
        return
    for rank, (before, shown) in enumerate(zip(plain, corrected, strict=True)):
        assert shown.error is None
        for way, value in shown.values.items():
            serious_findings = [finding for finding in corrected[0].about(way) if is_serious(finding)]
            # where the plain run breaks off, nothing shows what it would have logged
            stays = before.error is not None or value == before.values[way]
            # a value of this rank alone, where that of rank 0 happens to be right, or of parts of queries
            lone = rank > 0 or any(finding.code == "LRG302" for finding in serious_findings)
            left = lone and way in ("forward", "step") and stays and corrected[0].about(way)
            assert left or is_any(value, wanted[way]), f"{way}: {value}, not {wanted[way]}"
            silent = rank == 0 and before.error is None and not serious_findings and not is_declared(case, way)
            assert not silent or is_any(value, [before.values[way]]), f"{way}: {before.values[way]} changed to {value}"


def misses_a_key(ranks: list[Shown]) -> bool:
    """Whether all ranks refuse to go on, because one of them has not logged a key."""
    return all(isinstance(shown.error, GuardError) and "LRG206" in str(shown.error) for shown in ranks)


@given(case=cases())
def test_warn_changes_nothing_and_tells_of_every_wrong_number(case: Case) -> None:
    plain, warned, wanted = case.run(), case.run("warn"), wanted_by_way(case)
    for before, shown in zip(plain, warned, strict=True):
        assert type(shown.error) is type(before.error)
        assert shown.values == before.values
    if any(shown.error for shown in plain):
        assert any(map(is_serious, warned[0].findings)), plain[0].error
        return
    for way in case.ways:
        values = [shown.values[way] for shown in plain if way in shown.values]
        if not any(all(is_any(value, [one]) for value in values) for one in wanted[way]):
            assert warned[0].about(way) or is_declared(case, way), f"{way}: {values}, not {wanted[way]}, and no finding"
        elif len(wanted[way]) == 1:
            serious = {finding.code for finding in warned[0].about(way) if is_serious(finding)}
            assert serious <= WITHOUT_EFFECT, f"{way} is right: {serious}"


@given(case=cases())
def test_strict_raises_on_all_ranks_or_shows_the_plain_numbers(case: Case) -> None:
    plain, strict, wanted = case.run(), case.run("strict"), wanted_by_way(case)
    raised = [isinstance(shown.error, GuardError) for shown in strict]
    assert len(set(raised)) == 1, [shown.error for shown in strict]
    if not raised[0]:
        for before, shown in zip(plain, strict, strict=True):
            assert (shown.values, shown.error) == (before.values, None)
            for way, value in shown.values.items():
                assert is_any(value, wanted[way]) or is_declared(case, way), f"{way}: {value}, not {wanted[way]}"
