"""Every program of the corpus: parity passes the right ones, and finds each number that hangs on the world size."""

from __future__ import annotations

from functools import partial

import pytest

from lightning_retrieval_guard.parity.check import Processes, check
from lightning_retrieval_guard.parity.compare import DIFFERENT, NOT_RUN, SAME, Parity
from lightning_retrieval_guard.parity.options import build_options
from tests.programs.expectations import Program, read_programs
from tests.programs.runs import Runs, numbers_of, off

from .corpus import SEED, stages_of, target_of

PROGRAMS = read_programs()
WORLD_SIZES = (1, 2)
# They log in training alone, which parity does not run.
OF_TRAINING = {"right.running_value_on_progress_bar", "right.training_metrics"}
CASES = [
    (program, stage) for program in PROGRAMS.values() if program.name not in OF_TRAINING for stage in stages_of(program)
]
# Batches are those that the program makes, as in the runs without parity that these are compared with.
ask = partial(build_options, world_sizes=WORLD_SIZES, seed=SEED, timeout=60, keep="per-rank")


# The last program of each kind, and those of which something else is said.
KINDS = {
    (program.is_right, program.fields["Kind"], *sorted(program.fields.keys() - {"Kind"})): program.name
    for program, _ in CASES
}


def cases(right: bool) -> pytest.MarkDecorator:
    """Parametrize by program and stage; for the night by every program of the corpus."""
    return pytest.mark.parametrize(
        ("program", "stage"),
        [
            pytest.param(
                program,
                stage,
                marks=() if program.name in KINDS.values() else pytest.mark.nightly,
                id=f"{program.name}-{stage}",
            )
            for program, stage in CASES
            if program.is_right is right
        ],
    )


@cases(right=True)
def test_a_right_program_passes(processes: Processes, program: Program, stage: str) -> None:
    parity = check(ask(target_of(program, stage), stage=stage), processes)
    of_rank = set(program.fields.get("Own", "").split())
    assert not parity.problems
    assert {key.name for key in parity.different} <= of_rank
    assert len(parity.keys) > len(of_rank & {key.name for key in parity.keys})


@cases(right=False)
def test_every_number_that_hangs_on_the_world_size_is_found(
    processes: Processes, runs: Runs, program: Program, stage: str
) -> None:
    parity = check(ask(target_of(program, stage), stage=stage), processes)
    if program.fails(2):
        assert parity.exit_code == NOT_RUN
        assert codes_in(parity.problems[0].problem) == expected_codes(program)
        return
    found = {key.name for key in parity.different}
    if ".fit(" not in program.text:  # parity does not train before it evaluates
        assert found == differing(program, runs)
    assert parity.exit_code == (DIFFERENT if found else SAME)
    explained = {one.code for key in parity.different for difference in key.differences for one in difference.findings}
    assert explained <= expected_codes(program)
    assert bool(explained) == (bool(found) and not is_unexplained(program))
    assert all(
        difference.explained == bool(difference.findings) for key in parity.different for difference in key.differences
    )


def differing(program: Program, runs: Runs) -> set[str]:
    """The keys of a program that show other numbers on two processes than on one, by a run of its own."""
    one, two = (runs.values(program.name, world_size, "none")[0] for world_size in WORLD_SIZES)
    return set(off(program, two, numbers_of(one)))


def expected_codes(program: Program) -> set[str]:
    return {place.code for place in program.expected(2)}


def is_unexplained(program: Program) -> bool:
    calls = {"LRG306"}  # tells of a call, and not of a key
    silent = "No rule" in program.fields or program.known_misses(2) == program.expected(2)
    return silent or expected_codes(program) == calls


def codes_in(text: str) -> set[str]:
    return {word for word in text.split() if word.startswith("LRG")}


@pytest.mark.parametrize(("keep", "exit_code"), [("global", SAME), ("per-rank", DIFFERENT)])
def test_a_pool_of_all_ranks_depends_on_the_reading(processes: Processes, keep: str, exit_code: int) -> None:
    """Pairs are ranked among those of all processes: as many as on one process only where these share its batch."""
    parity = check(ask(f"{__package__}.targets:gathered_pool", keep=keep), processes)
    assert parity.exit_code == exit_code


@pytest.mark.parametrize("name", ["gathered_in_step", "ids_arange_metric_object", "shard_of_forward", "padded_queries"])
def test_in_correct_mode_wrong_programs_pass(processes: Processes, name: str) -> None:
    program = PROGRAMS[f"wrong.{name}"]
    [stage] = stages_of(program)
    parity = check(ask(target_of(program, stage), stage=stage, mode="correct"), processes)
    assert parity.exit_code == SAME, parity
    assert any(finding.corrected for finding in parity.runs[-1].findings)


def test_the_number_of_loaders_and_their_keys(processes: Processes) -> None:
    program = PROGRAMS["right.metric_for_each_loader"]
    parity: Parity = check(ask(target_of(program, "validate"), keep="global"), processes)
    assert [key.name for key in parity.keys] == [f"val_ndcg@3/dataloader_idx_{index}" for index in (0, 1)]
    assert [[loader.batch_size for loader in run.loaders] for run in parity.runs] == [[4, 4], [2, 2]]
