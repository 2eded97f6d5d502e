"""A rank that sends something else than the guard sends: all ranks step aside together, and strict raises."""

from __future__ import annotations

from typing import Any

import pytest

from lightning_retrieval_guard.distributed.exchange import GroupExchange
from lightning_retrieval_guard.run.collect import FactCollector
from tests.distributed.evaluate import guards, make_trainer, recorded_warnings
from tests.distributed.harness import Pool

from .programs import Sharded
from .test_no_trace import traces

pytestmark = pytest.mark.timeout(90)


def another_version(original: Any, *arguments: Any) -> Any:
    return {**original(*arguments), "batches": "4"}


def spoilt(original: Any, *arguments: Any) -> bytes:
    text = bytearray(original(*arguments))
    text[len(text) // 2] ^= 0xFF
    return bytes(text)


def cut_off(original: Any, *arguments: Any) -> bytes:
    return bytes(original(*arguments)[:-3])


def endless(original: Any, *arguments: Any) -> bytes:
    return bytes(5 << 20)


PARTS: dict[str, tuple[type, str, Any]] = {
    "version": (FactCollector, "message", another_version),
    "spoilt": (GroupExchange, "_compress", spoilt),
    "cut-off": (GroupExchange, "_compress", cut_off),
    "too-long": (GroupExchange, "_compress", endless),
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
        "findings": [(found.code, found.ranks) for own in guard for found in own.findings],
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
