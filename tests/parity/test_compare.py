"""Runs laid side by side: which numbers are the same, which finding explains a difference, and the text and JSON."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

import pytest

from lightning_retrieval_guard.findings import Effect, Finding, Severity
from lightning_retrieval_guard.parity.compare import DIFFERENT, NOT_RUN, SAME, Parity, Run, compare
from lightning_retrieval_guard.parity.options import Options, build_options
from lightning_retrieval_guard.parity.render import WIDTH, build_document, render, write_document
from lightning_retrieval_guard.parity.worker import Loader
from lightning_retrieval_guard.report.text import columns

NAN, INFINITE = math.nan, math.inf
FINDING = Finding(
    code="LRG203",
    rule="never-synced",
    severity=Severity.ERROR,
    key="key",
    stage="validate",
    hook="validation_step",
    path=str(Path.cwd() / "src" / "module.py"),
    line=7,
    message="'key' is each rank's own.",
    fix="Log it with sync_dist=True.",
    effect=Effect(0.5, 1.0),
)


def options(**given: object) -> Options:
    return build_options("module:build", **given)  # type: ignore[arg-type]


def laid(*ranks: object, **given: object) -> Parity:
    """One run a world size: numbers of the key on its ranks; one number means all ranks."""
    runs = []
    for index, numbers in enumerate(ranks):
        size = 2**index
        values = numbers if isinstance(numbers, tuple) else (numbers,) * size
        runs.append(Run(size, tuple({} if value is None else {"key": value} for value in values)))
    return compare(options(**given), runs)


@pytest.mark.parametrize(
    ("one", "two", "same"),
    [
        (1.0, 1.0, True),
        (1.0, 1.00001, True),
        (1.0, 1.00002, False),
        (1000.0, 1000.009, True),
        (0.0, 1e-6, True),
        (0.0, 1.1e-6, False),
        (-1.0, -1.00002, False),
        (NAN, NAN, True),
        (NAN, 1.0, False),
        (1.0, NAN, False),
        (INFINITE, INFINITE, True),
        (INFINITE, 1.0, False),
        (INFINITE, -INFINITE, False),
        (1.0, None, False),
        (None, 1.0, False),
        (1.0, (1.0, None), True),
        (1.0, (1.0, 2.0), False),
        (1.0, (None, 1.0), False),
    ],
)
def test_what_is_the_same(one: object, two: object, same: bool) -> None:
    parity = laid(one, two)
    assert parity.exit_code == (SAME if same else DIFFERENT)
    assert bool(parity.different) is not same


def test_the_tolerance_is_the_one_given() -> None:
    assert laid(1.0, 1.1, rtol=0.2).exit_code == SAME
    assert laid(1.0, 1.1, atol=0.2).exit_code == SAME
    assert laid(1.0, 1.0000001, rtol=0.0, atol=0.0).exit_code == DIFFERENT


def test_a_difference_tells_its_ranks_and_its_size() -> None:
    [key] = laid(1.0, (1.0, 1.5), (1.0, 1.25, 1.0, 0.0)).different
    assert [(one.world_size, one.ranks, one.size) for one in key.differences] == [(2, (1,), 0.5), (4, (1, 3), 1.0)]
    assert key.distance == 1.0
    assert key.numbers == {1: 1.0, 2: 1.0, 4: 1.0}


def test_exit_codes() -> None:
    problem = Run(4, problem="It hangs.")
    for two, code in ((1.0, NOT_RUN), (2.0, DIFFERENT)):
        runs = [Run(1, ({"key": 1.0},)), Run(2, ({"key": two},) * 2), problem]
        assert compare(options(), runs).exit_code == code
    assert compare(options(), [Run(1, problem="It dies.")]).exit_code == NOT_RUN


def found(*findings: Finding, name: str = "key") -> Parity:
    runs = [Run(1, ({name: 1.0},)), Run(2, ({name: 0.5},) * 2, findings), Run(4, ({name: 0.25},) * 4)]
    return compare(options(), runs)


def test_a_finding_about_the_key_explains_it_unless_it_is_a_note() -> None:
    note, other = replace(FINDING, severity=Severity.NOTE), replace(FINDING, key="other")
    [key] = found(note, other, FINDING).different
    assert [difference.findings for difference in key.differences] == [(FINDING,), ()]


def test_a_finding_explains_the_key_to_which_lightning_adds_the_loader() -> None:
    [key] = found(FINDING, name="key/dataloader_idx_1").different
    assert key.differences[0].findings == (FINDING,)
    [key] = found(FINDING, name="key/other").different
    assert key.differences[0].findings == ()


def test_a_finding_explains_it_all_where_its_reference_is_the_number_of_one_process() -> None:
    partly = replace(FINDING, effect=Effect(0.5, 0.75))
    unmeasured = replace(FINDING, effect=None)
    corrected = replace(FINDING, corrected=True)
    cases = [((FINDING,), True), ((unmeasured,), True), ((partly, FINDING), True), ((partly,), False)]
    for findings, explained in [*cases, ((corrected,), False)]:
        [key] = found(*findings).different
        assert [difference.explained for difference in key.differences] == [explained, False]
    assert "On 2 processes: no finding explains all of it. What is computed" in render(found(partly))


def test_one_process_may_be_wrong_too() -> None:
    on_one, on_two = (replace(FINDING, effect=Effect(logged, 0.75)) for logged in (1.0, 0.5))
    runs = [Run(1, ({"key": 1.0},), (on_one,)), Run(2, ({"key": 0.5},) * 2, (on_two,))]
    [key] = compare(options(), runs).different
    assert key.differences[0].explained


# --- text -----------------------------------------------------------------------------------------------------


def test_the_text_tells_numbers_findings_and_what_no_finding_explains() -> None:
    assert render(found(FINDING, replace(FINDING, key="other", corrected=True))) == "\n".join(
        [
            "Parity of module:build: validate, guard in mode warn",
            "",
            "processes       1       2       4  largest difference",
            "---------  ------  ------  ------  ------------------  ---------",
            "key        1.0000  0.5000  0.2500                0.75  different",
            "",
            "key is different on 2 and 4 processes.",
            "  On 2 processes: src/module.py:7: LRG203 never-synced: 'key' is each rank's",
            "    own. Logged 0.5000, reference 1.0000. Log it with sync_dist=True.",
            "  On 4 processes: no finding explains it. What is computed over the batch of a",
            "    process, such as in-batch candidates, depends on its size.",
            "",
            "Findings that go with no difference:",
            "  On 2 processes, corrected: src/module.py:7: LRG203 never-synced: 'other'",
            "",
            "DIFFERENT: 1 of 1 key.",
        ]
    )


def test_the_text_tells_what_ranks_show_where_they_disagree() -> None:
    text = render(laid(1.0, (0.5, 0.25), (1.0, 1.0, 1.0, 2.0)))
    assert "On 2 processes rank 0 shows 0.5000, rank 1 shows 0.2500." in text
    assert "On 4 processes rank 0 shows 1.0000, rank 1 shows 1.0000, rank 2 shows" in text
    assert "rank" not in render(laid(1.0, 0.5))
    assert "rank" not in render(laid(1.0, (0.5, None)))


def test_the_text_of_equal_numbers_and_of_missing_ones() -> None:
    assert render(laid(1.0, 1.0, 1.0)).endswith("SAME: 1 key on 1, 2 and 4 processes.")
    assert "key        -  1.0000                   -  different" in render(laid(None, 1.0)).splitlines()


def test_the_text_of_what_could_not_be_run() -> None:
    runs = [Run(1, ({"key": 1.0},)), Run(2, problem="It hangs.\n    stack, as it " + "is " * 40 + "\nMore.")]
    assert render(compare(options(), runs)).splitlines()[-6:] == [
        "2 processes: not possible.",
        "  It hangs.",
        "      stack, as it " + "is " * 40,
        "  More.",
        "",
        "NOT RUN: 2 processes.",
    ]


def test_a_random_order_and_the_batch_of_each_rank_are_named_as_reasons() -> None:
    runs = [Run(1, ({"key": 1.0},), loaders=(Loader(8, "", True),)), Run(2, ({"key": 2.0},) * 2)]
    text = " ".join(render(compare(options(keep="per-rank"), runs)).split())
    assert "no finding explains it. A loader draws its samples in a random order" in text
    assert "With --keep per-rank all processes together have larger batches than one." in text
    assert "Batch of each process: 8 on 1" in text


@pytest.mark.parametrize("name", ["k" * 200, "検索" * 60, "evil\x1b[31mkey"])
def test_no_line_is_wider_than_the_page_or_drives_the_terminal(name: str) -> None:
    runs = [
        Run(size, ({name: 1.0 / size},) * size, (replace(FINDING, key=name, message=f"{name} x"),))
        for size in range(1, 9)
    ]
    lines = render(compare(options(), runs)).splitlines()
    table = [line for line in lines if line.endswith("different")]
    assert len(table) == 2  # four numbers of processes beside the reference, then the rest
    assert all(columns(line) <= WIDTH for line in table)
    assert all(line.isprintable() for line in lines)


# --- JSON -----------------------------------------------------------------------------------------------------


def test_the_document(tmp_path: Path) -> None:
    write_document(tmp_path / "parity.json", found(FINDING))
    document = json.loads((tmp_path / "parity.json").read_text())
    assert document["version"] == 1
    assert (document["verdict"], document["target"], document["stage"]) == ("different", "module:build", "validate")
    assert (document["mode"], document["keep"], document["seed"]) == ("warn", "global", 0)
    assert (document["rtol"], document["atol"]) == (1e-5, 1e-6)
    assert [run["world_size"] for run in document["runs"]] == [1, 2, 4]
    assert document["runs"][1]["ranks"] == [{"key": 0.5}] * 2
    assert document["runs"][1]["findings"] == [FINDING.to_dict()]
    assert document["keys"]["key"] == {
        "numbers": {"1": 1.0, "2": 0.5, "4": 0.25},
        "largest_difference": 0.75,
        "differences": [
            {
                "world_size": 2,
                "ranks": [0, 1],
                "difference": 0.5,
                "explained": True,
                "findings": [{"code": "LRG203", "path": FINDING.path, "line": 7}],
            },
            {"world_size": 4, "ranks": [0, 1, 2, 3], "difference": 0.75, "explained": False, "findings": []},
        ],
    }


def test_numbers_that_json_does_not_know_are_null() -> None:
    document = build_document(laid(NAN, INFINITE))
    assert document["keys"]["key"]["numbers"] == {"1": None, "2": None}
    assert document["runs"][1]["ranks"] == [{"key": None}] * 2
    assert json.loads(json.dumps(document, allow_nan=False)) == document
