"""A rank that sends something else, or runs another version: all step aside together, and strict raises."""

from __future__ import annotations

from typing import Any

import pytest

from lightning_retrieval_guard.distributed import exchange
from lightning_retrieval_guard.run.synchronize import RankSources
from tests.distributed.evaluate import guards, make_trainer, recorded_warnings
from tests.distributed.harness import Pool

from .programs import Sharded
from .test_no_trace import traces

pytestmark = pytest.mark.timeout(90)


def out_of_range(original: Any, *arguments: Any) -> Any:
    sent = original(*arguments)
    return {**sent, "rows": [{**facts, "rows": -1} for facts in sent["rows"]]}


def spoilt(original: Any, *arguments: Any) -> bytes:
    text = bytearray(original(*arguments))
    text[len(text) // 2] ^= 0xFF
    return bytes(text)


def cut_off(original: Any, *arguments: Any) -> bytes:
    return bytes(original(*arguments)[:-3])


def endless(original: Any, *arguments: Any) -> bytes:
    return bytes(5 << 20)


PARTS: dict[str, tuple[Any, str, Any]] = {
    "out-of-range": (RankSources, "to_payload", out_of_range),
    "spoilt": (exchange, "_compress", spoilt),
    "cut-off": (exchange, "_compress", cut_off),
    "too-long": (exchange, "_compress", endless),
}


def send(mode: str, part: str | None) -> dict[str, Any]:
    """Validate on this rank, where rank one sends something wrong."""
    guard, module = guards(mode, {}), Sharded()
    trainer = make_trainer(guard, False)
    owner, name, change = PARTS[part or "spoilt"]
    original = getattr(owner, name)
    if part is not None and trainer.global_rank == 1:
        setattr(owner, name, lambda *arguments: change(original, *arguments))
    try:
        with recorded_warnings() as warned:
            [returned] = trainer.validate(module, verbose=False)
    finally:
        setattr(owner, name, original)
    return {
        "mrr": returned["mrr"],
        "said": [one["text"] for one in warned if "GuardWarning" in one["categories"]],
        "findings": [(finding.code, finding.ranks) for each in guard for finding in each.findings],
        "traces": traces(trainer, module),
    }


@pytest.mark.parametrize("mode", ["warn", "correct"])
@pytest.mark.parametrize("part", PARTS)
def test_all_ranks_step_aside_together(pool: Pool, part: str, mode: str) -> None:
    plain = pool.run(f"{__name__}:send", mode="none", part=None)
    outcomes = pool.run(f"{__name__}:send", mode=mode, part=part)
    assert all(outcome.ok for outcome in outcomes), "\n".join(map(str, outcomes))
    assert [outcome.value["mrr"] for outcome in outcomes] == [outcome.value["mrr"] for outcome in plain]
    first, second = (outcome.value for outcome in outcomes)
    assert first["findings"] == second["findings"] == [("LRG901", (1,))]
    [said] = first["said"]
    assert "rank 1 sent what cannot be read" in said
    assert "All ranks must run the same version of lightning-retrieval-guard" in said
    assert not second["said"]
    assert first["traces"] == second["traces"] == []


@pytest.mark.parametrize("part", PARTS)
def test_strict_raises_on_every_rank(pool: Pool, part: str) -> None:
    for outcome in pool.run(f"{__name__}:send", mode="strict", part=part):
        assert "GuardError" in outcome.error_types, str(outcome)
        assert "LRG901" in outcome.error
        assert "rank 1 sent what cannot be read" in outcome.error


def join(mode: str) -> dict[str, Any]:
    """Validate on this rank, where rank one runs another version."""
    guard, module = guards(mode, {}), Sharded()
    trainer = make_trainer(guard, False)
    plain = exchange.VERSION
    exchange.VERSION = f"{plain}.{trainer.global_rank}"
    try:
        with recorded_warnings() as warned:
            [returned] = trainer.validate(module, verbose=False)
    finally:
        exchange.VERSION = plain
    return {"mrr": returned["mrr"], "said": [one["text"] for one in warned if "GuardWarning" in one["categories"]]}


VERSIONS = f"{exchange.VERSION}.0 on rank(s) 0; {exchange.VERSION}.1 on rank(s) 1"


@pytest.mark.parametrize("mode", ["warn", "correct"])
def test_ranks_that_run_different_versions_step_aside_and_say_which(pool: Pool, mode: str) -> None:
    plain = pool.run(f"{__name__}:send", mode="none", part=None)
    first, second = pool.run(f"{__name__}:join", mode=mode)
    assert [first.value["mrr"], second.value["mrr"]] == [outcome.value["mrr"] for outcome in plain]
    [said] = first.value["said"]
    assert said.startswith("LRG901")
    assert VERSIONS in said
    assert not second.value["said"]


def test_strict_raises_where_ranks_run_different_versions(pool: Pool) -> None:
    for outcome in pool.run(f"{__name__}:join", mode="strict"):
        assert "GuardError" in outcome.error_types, str(outcome)
        assert VERSIONS in outcome.error
