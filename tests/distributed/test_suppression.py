"""Rules that may not speak, on two ranks: silence, and the numbers of the run without a guard."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Mapping
from typing import Any

import pytest
import torch
from torch import Tensor
from torchmetrics.retrieval import RetrievalMRR

from tests.programs.expectations import Program, read_programs
from tests.programs.runs import Runs, numbers_of, off

from .evaluate import Recorder, guards, make_trainer, recorded_warnings
from .harness import Outcome, Pool
from .programs.base import QueryProgram
from .programs.data import Batch, rows_of
from .programs.programs import LossProgram
from .test_matrix import codes, guard_warnings, values

WORLD = 2
PROGRAMS = read_programs()


def chooses(program: Program) -> bool:
    """Its numbers stay: they are not running values, which in correct mode are the rank's own."""
    return program.name != "wrong.running_value" and not program.fields.keys() & {"Known miss", "Fails"}


# The last program of each rule.
ONE_A_RULE = {place.code: name for name, own in PROGRAMS.items() if chooses(own) for place in own.expected(WORLD)}
EACH_RULE = pytest.mark.parametrize(("code", "name"), ONE_A_RULE.items())


@EACH_RULE
@pytest.mark.parametrize(
    ("mode", "how"), [("correct", "within"), ("correct", "ignored"), ("warn", "within"), ("strict", "within")]
)
def test_the_number_stays_and_nothing_is_said_or_raised(runs: Runs, code: str, name: str, mode: str, how: str) -> None:
    program = PROGRAMS[name]
    silent = tuple(sorted({place.code for place in program.expected(WORLD)}))
    plain, silenced = runs.values(name, WORLD, "none"), runs.values(name, WORLD, mode, **{how: silent})
    for one, other in zip(plain, silenced, strict=True):
        assert mode == "correct" or other["everything"] == one["everything"]
        assert not off(program, other, numbers_of(one))
        assert not codes(other["findings"], "error", "warning")
        assert not other["warnings"]


def test_uneven_updates_are_silent_and_still_combined(runs: Runs) -> None:
    """Without a correction there is no number, only a run that hangs."""
    program = PROGRAMS["wrong.updated_when_relevant"]
    for value in runs.values(program.name, WORLD, "correct", within=("LRG205",)):
        assert not off(program, value, runs.reference(program))
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
