"""Every program of `programs`, on 1 to 3 processes, without a guard and in each mode of it."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import pytest

from .harness import Outcome, Pool
from .programs import PROGRAMS, Entry

TOLERANCE = 1e-6
TARGET = f"{__package__}.evaluate:evaluate"
MODES = ("warn", "correct", "strict")
Numbers = dict[str, float]
Runs = Callable[..., list[Outcome]]


def is_wrong(entry: Entry, world: int) -> bool:
    return bool(entry.expected(world))


def is_right(entry: Entry, world: int) -> bool:
    return not is_wrong(entry, world)


# The last program of each rule.
ONE_A_RULE = sorted({entry.expected(3): name for name, entry in PROGRAMS.items() if 3 in entry.worlds}.values())


def cases(wanted: Callable[[Entry, int], bool] = lambda entry, world: True) -> pytest.MarkDecorator:
    """Parametrize by program and world size."""
    pairs = [(name, world) for name, entry in PROGRAMS.items() for world in entry.worlds if wanted(entry, world)]
    return pytest.mark.parametrize(
        ("name", "world"), [pytest.param(*pair, marks=marks_of(*pair), id=f"{pair[0]}-{pair[1]}") for pair in pairs]
    )


def marks_of(name: str, world: int) -> list[pytest.MarkDecorator]:
    """More ranks than two show little that two do not, and a right program is right alone."""
    is_short = world == 2 or (world == 1 and is_wrong(PROGRAMS[name], 1))
    return [] if is_short else [pytest.mark.nightly]


@pytest.fixture(scope="module")
def run(pools: Mapping[int, Pool]) -> Runs:
    """`run(name, world, mode)`: the outcome on every rank; a run is made once."""
    kept: dict[tuple[Any, ...], list[Outcome]] = {}

    def once(name: str, world: int, mode: str = "none", **options: Any) -> list[Outcome]:
        key = (name, world, mode, *sorted(options.items()))
        if key not in kept:
            case = f"{name} on {world} in mode {mode}"
            kept[key] = pools[world].run(TARGET, case=case, program=name, mode=mode, **options)
        return kept[key]

    return once


@pytest.fixture(scope="module")
def reference(run: Runs) -> Callable[[str], Numbers]:
    """`reference(name)`: what the program's right form shows on one process."""
    return lambda name: epoch_numbers(values(run(name, 1, right_form=True))[0])


def values(outcomes: list[Outcome]) -> list[dict[str, Any]]:
    """What every rank shows; all of them must have returned."""
    assert all(outcome.ok for outcome in outcomes), "\n".join(map(str, outcomes))
    return [outcome.value for outcome in outcomes]


def epoch_numbers(value: dict[str, Any]) -> Numbers:
    """All numbers of the epoch, by the place where they are shown and their key."""
    logged = {key: number for metrics, _ in value["logger"] for key, number in metrics.items()}
    places = {
        "callback": value["callback_metrics"],
        "returned": value["returned"][0],
        "logger": {key: number for key, number in logged.items() if key != "epoch"},
        "bar": value["progress_bar_metrics"],
    }
    return {
        f"{source} {key}": number
        for source, metrics in places.items()
        for key, number in metrics.items()
        if not key.endswith("_step")
    }


def off(numbers: Numbers, expected: Numbers) -> dict[str, tuple[float, float]]:
    """The numbers that are not the expected ones, with both values."""
    pairs = {key: (number, expected[key]) for key, number in numbers.items()}
    return {key: pair for key, pair in pairs.items() if not math.isclose(*pair, rel_tol=0, abs_tol=TOLERANCE)}


def codes(findings: Iterable[dict[str, Any]], *severities: str) -> set[str]:
    return {finding["code"] for finding in findings if finding["severity"] in severities}


def above_note(value: dict[str, Any]) -> list[dict[str, Any]]:
    return [finding for finding in value["findings"] if finding["severity"] != "note"]


def advised(name: str, world: int) -> frozenset[str]:
    """The codes that are found above note although they change no number."""
    return PROGRAMS[name].advice if world > 1 else frozenset()


def guard_warnings(value: dict[str, Any]) -> list[dict[str, Any]]:
    return [warned for warned in value["warnings"] if "GuardWarning" in warned["categories"]]


@cases()
def test_without_a_guard(run: Runs, reference: Callable[[str], Numbers], name: str, world: int) -> None:
    expected = reference(name)
    wrong = [off(epoch_numbers(value), expected) for value in values(run(name, world))]
    assert any(wrong) == is_wrong(PROGRAMS[name], world)


@cases()
def test_warn_changes_nothing(run: Runs, name: str, world: int) -> None:
    sources = ("returned", "callback_metrics", "logged_metrics", "progress_bar_metrics", "logger", "random")
    for plain, guarded in zip(values(run(name, world)), values(run(name, world, "warn")), strict=True):
        assert {source: guarded[source] for source in sources} == {source: plain[source] for source in sources}
        assert guarded["collectives"]["step"] == plain["collectives"]["step"]


@cases()
def test_warn_finds(run: Runs, name: str, world: int) -> None:
    entry = PROGRAMS[name]
    for value in values(run(name, world, "warn")):
        assert codes(value["findings"], "error", "warning") == entry.expected(world) | advised(name, world)
        if world > 1:
            assert codes(value["findings"], "note") >= entry.notes


@cases(lambda entry, world: is_wrong(entry, world) and not (entry.asks and world > 1))
def test_findings_tell_their_effect(run: Runs, reference: Callable[[str], Numbers], name: str, world: int) -> None:
    expected = reference(name)
    plain = epoch_numbers(values(run(name, world))[0])
    findings = above_note(values(run(name, world, "warn"))[0])
    effects = {finding["key"]: finding["effect"] for finding in findings if finding["effect"]}
    pairs = {key: (effect["logged"], effect["reference"]) for key, effect in effects.items()}
    truth = {key: (plain[f"callback {key}"], expected[f"callback {key}"]) for key in pairs}
    assert pairs == {key: pytest.approx(pair, abs=TOLERANCE) for key, pair in truth.items()}
    assert pairs


@cases()
def test_correct(run: Runs, reference: Callable[[str], Numbers], name: str, world: int) -> None:
    entry, expected = PROGRAMS[name], reference(name)
    keys = set(epoch_numbers(values(run(name, world))[0]))
    for value in values(run(name, world, "correct")):
        numbers = epoch_numbers(value)
        assert set(numbers) == keys
        assert not off(numbers, expected)
        advice = advised(name, world)
        assert codes(value["findings"], "error", "warning") == entry.expected(world) | advice
        assert all(finding["corrected"] for finding in above_note(value) if finding["code"] not in advice)


@cases()
def test_correct_changes_no_number_without_a_finding_at_its_key(run: Runs, name: str, world: int) -> None:
    for plain, corrected in zip(values(run(name, world)), values(run(name, world, "correct")), strict=True):
        changed = {number.partition(" ")[2] for number in off(epoch_numbers(corrected), epoch_numbers(plain))}
        accused = {finding["key"] for finding in above_note(corrected)}
        assert {key.removesuffix("_epoch") for key in changed} <= {key.removesuffix("_epoch") for key in accused}


@pytest.mark.parametrize("name", ONE_A_RULE)
def test_correct_on_three(run: Runs, reference: Callable[[str], Numbers], name: str) -> None:
    entry = PROGRAMS[name]
    for value in values(run(name, 3, "correct")):
        assert not off(epoch_numbers(value), reference(name))
        assert codes(value["findings"], "error", "warning") == entry.expected(3) | entry.advice


@pytest.mark.parametrize("mode", ["warn", "correct"])
@cases(lambda entry, world: not (entry.asks and world > 1))
def test_the_guard_meets_seldom_and_never_in_a_step(run: Runs, name: str, world: int, mode: str) -> None:
    """However many updates there were; more metrics than fit into one message cost one collective more."""
    for plain, guarded in zip(values(run(name, world)), values(run(name, world, mode)), strict=True):
        assert guarded["collectives"]["step"] <= plain["collectives"]["step"]
        added = guarded["collectives"]["total"] - plain["collectives"]["total"]
        assert added <= (4 if len(plain["callback_metrics"]) <= 8 else 5)


@cases(lambda entry, world: is_right(entry, world) and not entry.advice)
def test_strict_lets_right_programs_pass(run: Runs, name: str, world: int) -> None:
    for plain, guarded in zip(values(run(name, world)), values(run(name, world, "strict")), strict=True):
        assert not off(epoch_numbers(guarded), epoch_numbers(plain))
        assert not guard_warnings(guarded)


@pytest.mark.parametrize("mode", MODES)
@cases(lambda entry, world: entry is PROGRAMS["on-step"])
def test_values_of_the_step_stay(run: Runs, name: str, world: int, mode: str) -> None:
    """`on_step=True` shows the rank's own value of the batch, under a guard as well."""
    for plain, guarded in zip(values(run(name, world)), values(run(name, world, mode)), strict=True):
        keys, numbers = zip(*step_numbers(guarded), strict=True)
        plain_keys, plain_numbers = zip(*step_numbers(plain), strict=True)
        assert keys == plain_keys
        # in correct mode the guard scores them, in double precision
        assert numbers == (pytest.approx(plain_numbers, abs=TOLERANCE) if mode == "correct" else plain_numbers)


def step_numbers(value: dict[str, Any]) -> list[tuple[str, float]]:
    """What the logger was given for steps, in order."""
    received = [item for metrics, _ in value["logger"] for item in metrics.items()]
    return [(key, number) for key, number in received if key.endswith("_step")]


@pytest.mark.parametrize("mode", ["none", *MODES])
@pytest.mark.parametrize("world", [1, 2])
def test_an_error_of_the_metric_passes_through(run: Runs, world: int, mode: str) -> None:
    for outcome in run("empty-queries", world, mode):
        assert outcome.status == "raised", str(outcome)
        assert "ValueError" in outcome.error_types
        assert outcome.error == "`compute` method was provided with a query with no positive target."


@pytest.mark.parametrize("name", ["gathered-object", "sync-off", "arange-object", "nominal", "object"])
def test_the_test_stage(run: Runs, name: str) -> None:
    expected = epoch_numbers(values(run(name, 1, method="test", right_form=True))[0])
    for value in values(run(name, 2, "correct", method="test")):
        assert not off(epoch_numbers(value), expected)
        assert codes(value["findings"], "error", "warning") == PROGRAMS[name].expected(2)
        assert {finding["stage"] for finding in value["findings"]} <= {"test"}
