"""Every part of the guard that a run calls, made to raise: LRG901, the numbers of all ranks, and nothing lost."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from tests.distributed.harness import Pool

from .parts import EARLIER, find_parts

pytestmark = pytest.mark.timeout(900)

NET = {
    # the functions that catch, and those that run the program's own code and so may not catch
    "run.protection:Protection.protect",
    "run.protection:Protection.meet",
    "run.protection:Protection.fail",
    "run.protection:Protection.give_up",
    "run.protection:Protection.step_aside",
    "run.session:Session.start_batch",
    "run.session:Session.open",
    "run.session:Session.close",
    "run.listener:Listener.compute",
    "run.listener:Listener.forward",
    "run.listener:Listener.routes",
    "run.listener:Listener.hook",
    "run.listener:Listener.stage",
    # what all ranks do once they have agreed on it, with nothing in it but Lightning's own results
    "run.correct:Fixes.install",
    # connects the ranks; without it no other can be told
    "distributed.exchange:make_exchange",
}
"""Parts that nothing protects, each a few lines long."""

VOICE = {"watch.call_site:user_call_site", "report.log:FindingLog.add"}
"""Without these the guard says on the error stream that it stepped aside."""

IN_REPR = {"report.faults:Fault.serious", "report.faults:group", "report.faults:judge_keys", "report.faults:verdict"}
"""On other ranks than zero only the guard's `repr` needs these, and shows the failure."""

REPORTING = ("report.", "run.reporter:")
"""Without these there is no report."""

CHUNK = 12
DECIDING = ("distributed.exchange:", "run.session:", "run.epochs:", "run.synchronize:", "rules:")


@pytest.fixture(scope="module")
def called(pools: Mapping[int, Pool]) -> list[list[str]]:
    """What every rank calls in a run without a failure."""
    return pools[2].values(f"{__package__}.parts:called_parts", timeout=60)


def same(one: dict[str, float], other: dict[str, float]) -> bool:
    return set(one) == set(other) and one == pytest.approx(other, abs=1e-6)


def wrong_with(name: str, rank: int, outcomes: dict[str, Any]) -> list[str]:
    """What became of a run with a broken part otherwise than it should on one rank."""
    outcome, wrong = outcomes[name], []
    if outcome["error"]:
        return [f"{name} on rank {rank} brought the run down: {outcome['error']}"]
    # a part that fails after the numbers are replaced finds them so
    if not any(same(outcome["numbers"], outcomes[kind]) for kind in ("plain", "correct")):
        wrong.append(
            f"{name} on rank {rank} left {outcome['numbers']}, neither {outcomes['plain']} nor {outcomes['correct']}"
        )
    if EARLIER not in outcome["found"]:
        wrong.append(f"{name} on rank {rank} lost what was found before")
    if outcome["reached"] and name not in VOICE | IN_REPR and "LRG901" not in outcome["found"]:
        wrong.append(f"{name} on rank {rank} failed without a word")
    if (
        rank == 0
        and "LRG901" in outcome["found"]
        and not name.startswith(REPORTING)
        and "LRG901" not in outcome["report"]
    ):
        wrong.append(f"{name} on rank {rank}: the report does not tell of it")
    return wrong


def broken(pools: Mapping[int, Pool], names: list[str], rank: int | None) -> list[str]:
    """What is wrong with the runs in which these parts raise."""
    wrong = []
    for start in range(0, len(names), CHUNK):
        chunk = names[start : start + CHUNK]
        outcomes = pools[2].run(f"{__package__}.parts:try_parts", names=chunk, rank=rank, timeout=120, grace=15)
        assert all(outcome.ok for outcome in outcomes), "\n".join(map(str, outcomes))
        for name in chunk:
            wrong += [line for one in outcomes for line in wrong_with(name, one.rank, one.value)]
            kinds = {same(one.value[name]["numbers"] or {}, one.value["plain"]) for one in outcomes}
            wrong += [f"{name}: plain numbers on some ranks, replaced ones on others"] * (len(kinds) > 1)
    return wrong


def test_one_of_each_class_on_one_rank(pools: Mapping[int, Pool], called: list[list[str]]) -> None:
    names = [name for name in called[1] if name not in NET]
    first = {name.rpartition(".")[0]: name for name in reversed(names)}.values()
    assert "\n".join(broken(pools, [name for name in names if name in first], rank=1)) == ""


@pytest.mark.nightly
def test_on_one_rank(pools: Mapping[int, Pool], called: list[list[str]]) -> None:
    names = [name for name in called[1] if name not in NET]
    assert "\n".join(broken(pools, names, rank=1)) == ""


def test_on_all_ranks(pools: Mapping[int, Pool], called: list[list[str]]) -> None:
    """Where ranks decide together; the others fail on each as on one."""
    names = [name for name in called[0] if name.startswith(DECIDING) and name not in NET]
    assert "\n".join(broken(pools, names, rank=None)) == ""


def test_what_no_rank_calls_is_shown(called: list[list[str]]) -> None:
    idle = sorted(set(find_parts()) - {name for names in called for name in names})
    print("not called by the program:", *idle, sep="\n")
    assert len(idle) < len(find_parts()) / 2
    assert set(find_parts()) >= NET | VOICE
