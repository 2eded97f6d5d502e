"""Rules that may not speak, on two ranks: silence, and the numbers of the run without a guard."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Mapping
from typing import Any

import pytest
import torch
from torch import Tensor
from torchmetrics.retrieval import RetrievalMRR

from .evaluate import Recorder, guards, make_trainer, recorded_warnings
from .harness import Outcome, Pool
from .programs import PROGRAMS
from .programs.base import QueryProgram
from .programs.data import Batch, rows_of
from .programs.shards import LossProgram
from .test_matrix import TARGET, codes, completes, epoch_numbers, guard_warnings, is_wrong, off, values

WORLD = 2
WRONG = [name for name, entry in PROGRAMS.items() if WORLD in entry.worlds and is_wrong(entry, WORLD)]
COMPLETE = [name for name in WRONG if completes(PROGRAMS[name], WORLD)]
# in correct mode no metric combines ranks in a step, so its running values are the rank's own
LEFT = [name for name in COMPLETE if name != "running-value"]
# the last program of each rule
ONE_A_RULE = list({PROGRAMS[name].expected(WORLD): name for name in LEFT}.values())


def quiet_codes(name: str) -> list[str]:
    """What is to be found of a program, above note."""
    return sorted(PROGRAMS[name].expected(WORLD) | PROGRAMS[name].advice)


@pytest.fixture(scope="module")
def plain(pools: Mapping[int, Pool]) -> Callable[[str], list[dict[str, float]]]:
    """The numbers of a program without a guard, on every rank."""
    kept: dict[str, list[dict[str, float]]] = {}

    def numbers(name: str) -> list[dict[str, float]]:
        if name not in kept:
            kept[name] = [epoch_numbers(value) for value in values(pools[WORLD].run(TARGET, program=name))]
        return kept[name]

    return numbers


@pytest.mark.parametrize(
    ("name", "how"),
    [
        *(pytest.param(name, "block", marks=() if name in ONE_A_RULE else pytest.mark.nightly) for name in LEFT),
        *((name, "argument") for name in ONE_A_RULE),
    ],
)
def test_correct_leaves_the_number(pools: Mapping[int, Pool], plain: Any, name: str, how: str) -> None:
    silent = quiet_codes(name)
    options: dict[str, Any] = {"within": silent} if how == "block" else {"guard_options": {"ignore": silent}}
    outcomes = pools[WORLD].run(TARGET, program=name, mode="correct", **options)
    for value, expected in zip(values(outcomes), plain(name), strict=True):
        assert not off(epoch_numbers(value), expected)
        assert not codes(value["findings"], "error", "warning")
        assert not guard_warnings(value)


@pytest.mark.parametrize("mode", ["warn", "strict"])
@pytest.mark.parametrize("name", ONE_A_RULE)
def test_nothing_is_said_or_raised(pools: Mapping[int, Pool], plain: Any, name: str, mode: str) -> None:
    outcomes = pools[WORLD].run(TARGET, program=name, mode=mode, within=quiet_codes(name))
    for value, expected in zip(values(outcomes), plain(name), strict=True):
        assert epoch_numbers(value) == expected
        assert not codes(value["findings"], "error", "warning")
        assert not guard_warnings(value)


@pytest.mark.parametrize("name", ["uneven-object", "none-compute"])
def test_uneven_updates_are_silent_and_still_combined(pools: Mapping[int, Pool], name: str) -> None:
    """Without a correction there is no number, only a run that hangs."""
    [alone] = values(pools[1].run(TARGET, program=name, right_form=True))
    for value in values(pools[WORLD].run(TARGET, program=name, mode="correct", within=["LRG205"])):
        assert not off(epoch_numbers(value), epoch_numbers(alone))
        assert not codes(value["findings"], "error", "warning")


# --- ranks decide together --------------------------------------------------------------------------------------


class OnSomeRanks(LossProgram):
    """The call stands in a block of the guard on some ranks."""

    ranks: tuple[int, ...] = ()
    quiet: Any = contextlib.nullcontext

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        with self.quiet("LRG203") if self.global_rank in self.ranks else contextlib.nullcontext():
            self.log("loss", batch["loss"].mean())


class Commented(LossProgram):
    """Every rank has the comment."""

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        self.log(
            "loss",
            batch["loss"].mean(),
        )  # lrg: ignore[LRG203]


class UnevenlyFed(QueryProgram):
    """A metric that one rank updates more often, and that nobody logs."""

    ranks: tuple[int, ...] = ()
    quiet: Any = contextlib.nullcontext

    def __init__(self, devices: int) -> None:
        super().__init__(devices)
        self.metrics = torch.nn.ModuleDict({"mrr": RetrievalMRR()})

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        with self.quiet("LRG205") if self.global_rank in self.ranks else contextlib.nullcontext():
            for _ in range(1 + self.global_rank):
                self.metrics["mrr"].update(*rows_of(batch))


class UnevenlyFedUnderAComment(UnevenlyFed):
    """The comment stands at the update."""

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        for _ in range(1 + self.global_rank):
            self.metrics["mrr"].update(*rows_of(batch))  # lrg: ignore[LRG205]


class RestartingInTwoKeys(QueryProgram):
    """Ids restart; one of two metrics is logged under a comment, at the end of the epoch."""

    empty = False

    def __init__(self, devices: int) -> None:
        super().__init__(devices)
        self.metrics = torch.nn.ModuleDict({"quiet": RetrievalMRR(), "loud": RetrievalMRR()})

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        ids: Tensor = torch.arange(len(batch["query"]))
        for metric in self.metrics.values():
            metric.update(*rows_of(batch, ids))

    def on_validation_epoch_end(self) -> None:
        self.log("quiet", self.metrics["quiet"].compute())  # lrg: ignore[LRG301]
        self.log("loud", self.metrics["loud"].compute())
        for metric in self.metrics.values():
            metric.reset()


def validate(program: str, mode: str, ranks: tuple[int, ...] = ()) -> dict[str, Any]:
    """Validate on this rank."""
    module = globals()[program](int(os.environ["WORLD_SIZE"]))
    guard = guards(mode, {})
    if guard:
        module.ranks, module.quiet = ranks, guard[0].ignore
    trainer = make_trainer(guard, Recorder())
    with recorded_warnings() as warned:
        [returned] = trainer.validate(module, verbose=False) or [{}]
    return {
        "returned": returned,
        "warnings": warned,
        "findings": [finding.to_dict() for each in guard for finding in each.findings],
    }


def outcomes_of(pools: Mapping[int, Pool], program: str, mode: str, **options: Any) -> list[Outcome]:
    return pools[WORLD].run(f"{__name__}:validate", program=program, mode=mode, **options)


@pytest.mark.parametrize(
    ("ranks", "silent"), [((), False), ((0,), False), ((1,), False), ((0, 1), True)], ids=["none", "0", "1", "all"]
)
def test_a_block_on_some_ranks_is_not_enough(pools: Mapping[int, Pool], ranks: tuple[int, ...], silent: bool) -> None:
    without = [value["returned"]["loss"] for value in values(outcomes_of(pools, "OnSomeRanks", "none"))]
    assert without[0] != without[1]
    of_ranks = values(outcomes_of(pools, "OnSomeRanks", "correct", ranks=ranks))
    numbers = [value["returned"]["loss"] for value in of_ranks]
    for value in of_ranks:
        assert (codes(value["findings"], "error") == {"LRG203"}) != silent
    if silent:
        assert numbers == without
    else:
        assert numbers[0] == numbers[1]
        assert numbers[0] not in without
    unused = [[one["line"] for one in value["findings"] if one["code"] == "LRG902"] for value in of_ranks]
    assert [bool(lines) for lines in unused] == [rank in ranks and not silent for rank in range(WORLD)]


@pytest.mark.parametrize("ranks", [(0,), (1,)], ids=str)
def test_strict_raises_on_every_rank_where_one_does_not_silence(
    pools: Mapping[int, Pool], ranks: tuple[int, ...]
) -> None:
    for outcome in outcomes_of(pools, "OnSomeRanks", "strict", ranks=ranks):
        assert outcome.status == "raised", str(outcome)
        assert "LRG203" in outcome.error


@pytest.mark.parametrize("mode", ["warn", "correct", "strict"])
def test_a_comment_on_every_rank(pools: Mapping[int, Pool], mode: str) -> None:
    without = [value["returned"] for value in values(outcomes_of(pools, "Commented", "none"))]
    for value, expected in zip(values(outcomes_of(pools, "Commented", mode)), without, strict=True):
        assert value["returned"] == expected
        assert not value["findings"]


@pytest.mark.parametrize(
    ("program", "ranks", "silent"),
    [
        ("UnevenlyFed", (), False),
        ("UnevenlyFed", (1,), False),
        ("UnevenlyFed", (0, 1), True),
        ("UnevenlyFedUnderAComment", (), True),
    ],
)
def test_a_finding_at_an_update(pools: Mapping[int, Pool], program: str, ranks: tuple[int, ...], silent: bool) -> None:
    for value in values(outcomes_of(pools, program, "warn", ranks=ranks)):
        findings = [one for one in value["findings"] if one["code"] == "LRG205"]
        assert [one["hook"] for one in findings] == ([] if silent else ["update"])
        assert not (silent and guard_warnings(value))


def test_one_of_two_keys_is_left_alone(pools: Mapping[int, Pool]) -> None:
    plain = values(outcomes_of(pools, "RestartingInTwoKeys", "none"))[0]["returned"]
    for value in values(outcomes_of(pools, "RestartingInTwoKeys", "correct")):
        assert value["returned"]["quiet"] == pytest.approx(plain["quiet"], abs=1e-6)
        assert value["returned"]["loud"] != pytest.approx(plain["loud"], abs=1e-3)
        assert {(one["code"], one["key"]) for one in value["findings"]} == {("LRG301", "loud")}
