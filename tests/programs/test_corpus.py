"""Every program of the corpus on one and two devices: the findings are those that are right, and the numbers too."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from lightning_retrieval_guard import rules
from tests.distributed.harness import Pool

from .evaluate import TARGET
from .expectations import WORLDS, Place, Program, read_programs
from .messages import DOCUMENT as MESSAGES
from .messages import collect
from .messages import render as render_messages
from .patterns import PATTERNS, Row, rows
from .runs import Runs, numbers_of, off
from .trust import DOCUMENT, render

PROGRAMS = read_programs()
# Rules about the guard itself, which no program of a user's sets off.
OF_THE_GUARD = "LRG9"
# What these warn of is the same on every number of devices, or chance.
ADVICE = {"LRG303", "LRG304"}
# Only its metrics themselves can combine ranks, which they do in correct mode.
LEFT_TO_ITS_METRICS = "wrong.average_of_macro_accuracy"
# What correct mode cannot know. A mean of a batch cannot be taken apart; sums that a callback keeps come from nowhere.
PATTERNS_THAT_STAY = {"FunctionalAuroc": "LRG403", "OneQuery": "LRG306", "SumsInCallback": "LRG403"}
# The usages that were counted in public: 27 right and 32 wrong ones, of 5 kinds.
WRONG_KINDS = {
    "rank 0's shard only": 12,
    "colliding ids": 10,
    "averages what may not be averaged": 6,
    "depends on pool or weight": 3,
    "wrong sampler": 1,
}


def cases(wanted: Callable[[Program, int], bool] = lambda program, world: True) -> pytest.MarkDecorator:
    """Parametrize by program and world size."""
    pairs = [(program, world) for program in PROGRAMS.values() for world in WORLDS if wanted(program, world)]
    return pytest.mark.parametrize(("program", "world"), pairs, ids=[f"{own.name}-{world}" for own, world in pairs])


def is_wrong(program: Program, world: int) -> bool:
    """The program logs other numbers than its right form does on one device."""
    return any(place.code not in ADVICE for place in program.expected(world))


def is_comparable(program: Program, world: int) -> bool:
    return "Pool" not in program.fields and not program.fails(world)


def is_corrected(program: Program, world: int) -> bool:
    """Correct mode logs the numbers of the right form."""
    certain = not program.fields.keys() & {"Pool", "Stays"}
    return certain and (world > 1 or is_wrong(program, world))


def is_left_in_strict_mode(program: Program, world: int) -> bool:
    """What nobody finds, and implausible values, of which the ranks that have none hear too late."""
    return bool(program.known_misses(world)) or "LRG501" in {place.code for place in program.expected(world)}


@cases()
def test_it_finds_what_is_right_and_nothing_else(runs: Runs, program: Program, world: int) -> None:
    verdict = runs.verdict(program, world)
    assert {place.code for place in verdict.false} == {code for code in rules if code in program.known_false}
    assert verdict.missed == program.known_misses(world)


@cases()
def test_notes(runs: Runs, program: Program, world: int) -> None:
    notes = runs.verdict(program, world).notes
    expected = program.expected(world, note=True)
    assert expected == notes if program.is_right else expected <= notes


@cases(lambda program, world: not program.fails(world))
def test_every_rank_holds_the_findings_and_rank_zero_warns(runs: Runs, program: Program, world: int) -> None:
    first, *others = runs.values(program.name, world, "warn")
    warned = {(one["text"][:6], one["path"], one["line"]) for one in first["warnings"]}
    above = [one for one in first["findings"] if one["severity"] != "note"]
    assert warned == {(one["code"], one["path"], one["line"]) for one in above}
    for other in others:
        assert list(map(verdict_of, other["findings"])) == list(map(verdict_of, first["findings"]))
        assert not other["warnings"]


def verdict_of(finding: dict[str, Any]) -> tuple[Any, ...]:
    """A finding without its numbers, which may be those of one rank."""
    return tuple(finding[name] for name in ("code", "severity", "key", "stage", "line", "ranks", "corrected"))


@cases(lambda program, world: not program.fails(world))
def test_warn_mode_changes_nothing(runs: Runs, program: Program, world: int) -> None:
    plain, warned = (runs.values(program.name, world, mode) for mode in ("none", "warn"))
    for one, other in zip(plain, warned, strict=True):
        assert (other["everything"], other["random"]) == (one["everything"], one["random"])
        assert other["collectives"]["step"] == one["collectives"]["step"]


@pytest.mark.parametrize("mode", ["warn", "correct"])
@cases(lambda program, world: not program.fails(world))
def test_ranks_meet_seldom_and_never_in_a_step(runs: Runs, program: Program, world: int, mode: str) -> None:
    plain, guarded = (runs.values(program.name, world, own) for own in ("none", mode))
    for one, other in zip(plain, guarded, strict=True):
        assert other["collectives"]["step"] <= one["collectives"]["step"]
        added = other["collectives"]["total"] - one["collectives"]["total"]
        assert added <= 1 + 3 * guarded[0]["stages"] or (mode, program.name) == ("correct", LEFT_TO_ITS_METRICS)


@cases(lambda program, world: is_corrected(program, world) and not program.fails(world))
def test_findings_tell_their_effect(runs: Runs, program: Program, world: int) -> None:
    [plain, *_], right = runs.values(program.name, world, "none"), runs.reference(program)
    for one in runs.values(program.name, world, "warn")[0]["findings"]:
        if one["severity"] != "note" and one["effect"]:
            numbers = numbers_of(plain)[one["key"]][-1], right[one["key"]][-1]
            assert (one["effect"]["logged"], one["effect"]["reference"]) == pytest.approx(numbers, abs=1e-5)


@cases(lambda program, world: is_wrong(program, world) and not is_left_in_strict_mode(program, world))
def test_strict_mode_ends_wrong_programs_on_every_rank(runs: Runs, program: Program, world: int) -> None:
    for outcome in runs.outcomes(program.name, world, "strict"):
        assert outcome.status == "raised", str(outcome)
        assert {"GuardError", "MisconfigurationException"} <= set(outcome.error_types)
        assert any(place.code in outcome.error for place in program.expected(world))


# Of the rules that no program of tests/distributed sets off on three devices, with as many samples as these can share.
ON_THREE = {
    **dict.fromkeys(("updated_when_relevant", "never_reset", "padded_twins", "weight_times_world_size"), ("", "")),
    **dict.fromkeys(("floored_weights", "summed_over_ranks"), ("", "")),
    "guessed_batch_size": ("Texts(22)", "Texts(24)"),
    "rank_zero_and_sync": ("passages(20)", "passages(21)"),
    "keys_in_order_of_batches": ("series(16)", "series(18)"),
}


@pytest.mark.parametrize("name", ON_THREE)
def test_correct_mode_on_three_devices(runs: Runs, name: str) -> None:
    program = PROGRAMS[f"wrong.{name}"]
    text, right = (PROGRAMS[own].text.replace(*ON_THREE[name]) for own in (program.name, program.right_form))
    [alone] = runs.values(program.right_form, 1, "none", text=right)
    for value in runs.values(program.name, 3, "correct", text=text):
        assert not off(program, value, numbers_of(alone))
        assert {one.code for one in program.expected(2)} <= {one["code"] for one in value["findings"]}


@cases(lambda program, world: is_comparable(program, world) and not is_wrong(program, world))
def test_a_program_without_findings_logs_what_one_device_logs(runs: Runs, program: Program, world: int) -> None:
    for value in runs.values(program.name, world, "warn"):
        assert not off(program, value, runs.reference(program))


@cases(lambda program, world: is_comparable(program, world) and is_wrong(program, world))
def test_a_program_with_findings_logs_something_else(runs: Runs, program: Program, world: int) -> None:
    assert off(program, runs.values(program.name, world, "warn")[0], runs.reference(program))


@cases(lambda program, world: world > 1 and program.is_right and not program.known_false)
def test_strict_mode_lets_right_programs_end(runs: Runs, program: Program, world: int) -> None:
    for value in runs.values(program.name, world, "strict"):
        assert value["logged"] or value["shown"]


@cases(is_corrected)
def test_correct_mode_logs_what_one_device_logs(runs: Runs, program: Program, world: int) -> None:
    for value in runs.values(program.name, world, "correct"):
        assert value["logged"] or value["shown"]
        assert bool(off(program, value, runs.reference(program))) == bool(program.known_false)


@cases(lambda program, world: not program.fails(world))
def test_correct_changes_a_number_where_it_says_so_and_nowhere_else(runs: Runs, program: Program, world: int) -> None:
    plain, corrected = (runs.values(program.name, world, mode)[0] for mode in ("warn", "correct"))
    own = program.fields.get("Own", "").split()
    changed = {key for key in off(program, corrected, numbers_of(plain)) if key not in own}
    found = [one for one in corrected["findings"] if one["severity"] != "note"]
    assert changed <= {one["key"] for one in found}
    # of a sample that is a part of queries nobody works out what they come to with its rows twice
    worked_out = [one for one in found if one["code"] != "LRG403" or one["effect"]]
    corrected_keys = {one["key"] for one in worked_out if one["corrected"]}
    assert changed >= corrected_keys & numbers_of(plain).keys()


@cases(lambda program, world: world > 1 and "Stays" in program.fields)
def test_correct_mode_leaves_alone_what_it_cannot_know(runs: Runs, program: Program, world: int) -> None:
    plain, corrected = (runs.values(program.name, world, mode) for mode in ("warn", "correct"))
    for one, other in zip(plain, corrected, strict=True):
        assert not off(program, other, numbers_of(one))


@pytest.mark.parametrize(
    "program", [program for program in PROGRAMS.values() if program.repair], ids=lambda program: program.name
)
def test_a_repaired_program_logs_what_one_device_logs(runs: Runs, pools: Mapping[int, Pool], program: Program) -> None:
    [alone] = repaired(pools[1], program, "none")
    if not program.expected(1):
        assert not off(program, alone, runs.reference(program))
    gone = {place.code for note in (False, True) for place in program.expected(2, note)}
    for value in repaired(pools[2], program, "warn"):
        assert not [one for one in value["findings"] if one["severity"] != "note" or one["code"] in gone]
        assert numbers_of(value)
        assert not off(program, value, numbers_of(alone))


def repaired(pool: Pool, program: Program, mode: str) -> list[dict[str, Any]]:
    """What every rank shows of a program with its repair."""
    return pool.values(TARGET, case=program.name, program=program.name, mode=mode, text=program.repaired)


@pytest.mark.parametrize("line", ["x = 1", "y = 1"])
def test_a_repair_of_what_is_not_there_once_is_refused(tmp_path: Path, line: str) -> None:
    program = Program("wrong.program", tmp_path / "program.py")
    program.path.write_text("x = 1\nx = 1\n", encoding="utf-8")
    program.path.with_suffix(".diff").write_text(f"-{line}\n", encoding="utf-8")
    with pytest.raises(ValueError, match="not once"):
        _ = program.repaired


def test_every_rule_has_a_program_and_every_expectation_a_rule() -> None:
    expected = {expectation.place.code for program in PROGRAMS.values() for expectation in program.expectations}
    assert {code for code in rules if not code.startswith(OF_THE_GUARD)} == expected


def test_the_kinds_are_as_frequent_as_in_public() -> None:
    wrong = Counter(program.fields["Kind"] for program in PROGRAMS.values() if not program.is_right)
    right = sum(program.is_right for program in PROGRAMS.values())
    assert right >= 27
    for kind, count in WRONG_KINDS.items():
        assert abs(wrong[kind] - count) <= 2, kind
    assert abs(sum(wrong[kind] for kind in WRONG_KINDS) - 32) <= 5


@cases(lambda program, world: world > 1)
def test_a_program_says_what_it_is(program: Program, world: int) -> None:
    assert program.summary.endswith(".")
    assert program.fields["Kind"]
    assert program.right_form in PROGRAMS
    assert 15 < len(program.text.splitlines()) <= 70
    if program.is_right:
        assert not any(program.expected(own) for own in WORLDS)
    else:
        assert program.expectations or "No rule" in program.fields
    for expectation in program.expectations:
        assert ".log" in program.text.splitlines()[expectation.place.line - 1]


@pytest.mark.parametrize(
    ("comment", "place", "world", "note"),
    [
        ("# expect: LRG203@2", Place("LRG203", 1), 2, False),
        ("x = 1  # expect: LRG301", Place("LRG301", 1), None, False),
        ("# expect: note:LRG207@1", Place("LRG207", 1), 1, True),
    ],
)
def test_an_expectation_is_read(tmp_path: Path, comment: str, place: Place, world: int | None, note: bool) -> None:
    path = tmp_path / "program.py"
    path.write_text(comment, encoding="utf-8")
    [expectation] = Program("right.program", path).expectations
    assert (expectation.place, expectation.world, expectation.note) == (place, world, note)


def test_an_expectation_with_a_slip_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "program.py"
    path.write_text("\nx = 1  # expect: LRG20@2", encoding="utf-8")
    with pytest.raises(ValueError, match=r"line 2: 'LRG20@2' is no expectation"):
        _ = Program("right.program", path).expectations


@pytest.fixture(scope="module")
def patterns(pools: Mapping[int, Pool]) -> dict[str, Row]:
    """Every pattern, run once."""
    return rows(pools)


@pytest.mark.parametrize("name", PATTERNS)
def test_a_pattern_is_right_or_named(patterns: dict[str, Row], name: str) -> None:
    row = patterns[name]
    assert row.is_right == (name not in PATTERNS_THAT_STAY)
    assert name not in PATTERNS_THAT_STAY or PATTERNS_THAT_STAY[name] in row.found


def test_the_page_is_current(runs: Runs, patterns: dict[str, Row]) -> None:
    verdicts = [runs.verdict(program, world) for program in PROGRAMS.values() for world in WORLDS]
    page = render(verdicts, patterns.values())
    assert DOCUMENT.read_text(encoding="utf-8") == page, "run python -m tests.programs.trust"


@pytest.mark.timeout(400)  # where it runs alone, it runs the corpus
def test_the_messages_on_the_pages_of_the_rules_are_current(runs: Runs) -> None:
    fresh = render_messages(collect(runs))
    assert MESSAGES.read_text(encoding="utf-8") == fresh, "run python -m tests.programs.messages"
