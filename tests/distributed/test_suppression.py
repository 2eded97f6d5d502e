"""Rules that may not speak, on two ranks: silence, and the numbers of the run without a guard."""

from __future__ import annotations

import contextlib
from functools import partial
from typing import Any

import pytest
import torch
from lightning.pytorch import LightningModule
from torch import Tensor
from torchmetrics.retrieval import RetrievalMRR

from tests.programs.expectations import Program, read_programs
from tests.programs.runs import Runs, numbers_of, off

from .harness import Pool
from .programs.base import QueryProgram
from .programs.data import Batch, rows_of
from .programs.programs import LossProgram
from .ranks import TARGET, Shown, on_ranks
from .test_matrix import codes

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


def quiet(module: LightningModule, code: str, ranks: tuple[int, ...]) -> Any:
    """A block of the guard on some ranks."""
    on_this = module.global_rank in ranks and module.trainer.callbacks
    return module.trainer.callbacks[0].ignore(code) if on_this else contextlib.nullcontext()


class OnSomeRanks(LossProgram):
    """The call stands in a block of the guard on some ranks."""

    def __init__(self, ranks: tuple[int, ...] = ()) -> None:
        super().__init__(WORLD)
        self.ranks = ranks

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        with quiet(self, "LRG203", self.ranks):
            self.log("loss", batch["loss"].mean())


class Commented(LossProgram):
    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        self.log(
            "loss",
            batch["loss"].mean(),
        )  # lrg: ignore[LRG203]


class UnevenlyFed(QueryProgram):
    """A metric that one rank updates more often, and that nobody logs."""

    def __init__(self, ranks: tuple[int, ...] = ()) -> None:
        super().__init__(WORLD)
        self.metrics, self.ranks = torch.nn.ModuleDict({"mrr": RetrievalMRR()}), ranks

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        with quiet(self, "LRG205", self.ranks):
            for _ in range(1 + self.global_rank):
                self.metrics["mrr"].update(*rows_of(batch))


class UnevenlyFedUnderAComment(UnevenlyFed):
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


def codes_of(shown: Shown, severity: str) -> set[str]:
    return {one.code for one in shown.findings if one.severity == severity}


@pytest.mark.parametrize(
    ("ranks", "silent"), [((), False), ((0,), False), ((1,), False), ((0, 1), True)], ids=["none", "0", "1", "all"]
)
def test_a_block_on_some_ranks_is_not_enough(pool: Pool, ranks: tuple[int, ...], silent: bool) -> None:
    without = [shown.numbers["loss"] for shown in on_ranks(pool, OnSomeRanks)]
    assert without[0] != without[1]
    of_ranks = on_ranks(pool, partial(OnSomeRanks, ranks), "correct")
    numbers = [shown.numbers["loss"] for shown in of_ranks]
    for shown in of_ranks:
        assert (codes_of(shown, "error") == {"LRG203"}) != silent
    if silent:
        assert numbers == without
    else:
        assert numbers[0] == numbers[1]
        assert numbers[0] not in without
    unused = [any(one.code == "LRG902" for one in shown.findings) for shown in of_ranks]
    assert unused == [rank in ranks and not silent for rank in range(WORLD)]


@pytest.mark.parametrize("ranks", [(0,), (1,)], ids=str)
def test_strict_raises_on_every_rank_where_one_does_not_silence(pool: Pool, ranks: tuple[int, ...]) -> None:
    for outcome in pool.run(TARGET, program=partial(OnSomeRanks, ranks), mode="strict"):
        assert outcome.status == "raised", str(outcome)
        assert "LRG203" in outcome.error


@pytest.mark.parametrize("mode", ["warn", "correct", "strict"])
def test_a_comment_on_every_rank(pool: Pool, mode: str) -> None:
    program = partial(Commented, WORLD)
    for plain, shown in zip(on_ranks(pool, program), on_ranks(pool, program, mode), strict=True):
        assert (shown.numbers, shown.findings) == (plain.numbers, [])


@pytest.mark.parametrize(
    ("program", "silent"),
    [
        (partial(UnevenlyFed), False),
        (partial(UnevenlyFed, (1,)), False),
        (partial(UnevenlyFed, (0, 1)), True),
        (partial(UnevenlyFedUnderAComment), True),
    ],
    ids=["none", "1", "all", "comment"],
)
def test_a_finding_at_an_update(pool: Pool, program: Any, silent: bool) -> None:
    for shown in on_ranks(pool, program, "warn"):
        findings = [one for one in shown.findings if one.code == "LRG205"]
        assert [one.hook for one in findings] == ([] if silent else ["update"])
        assert not (silent and shown.said)


def test_one_of_two_keys_is_left_alone(pool: Pool) -> None:
    program = partial(RestartingInTwoKeys, WORLD)
    plain = on_ranks(pool, program)[0].numbers
    for shown in on_ranks(pool, program, "correct"):
        assert shown.numbers["quiet"] == pytest.approx(plain["quiet"], abs=1e-6)
        assert shown.numbers["loud"] != pytest.approx(plain["loud"], abs=1e-3)
        assert {(one.code, one.key) for one in shown.findings} == {("LRG301", "loud")}
