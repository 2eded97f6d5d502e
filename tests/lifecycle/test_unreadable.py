"""A rank that sends something else, or runs another version: all step aside together, and strict raises."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from lightning_retrieval_guard.distributed import exchange
from lightning_retrieval_guard.run.synchronize import RankSources
from tests.distributed.evaluate import guards, make_trainer, recorded_warnings
from tests.distributed.harness import Pool
from tests.distributed.ranks import Shown, on_ranks, shown_by

from .programs import Sharded
from .test_no_trace import traces

pytestmark = pytest.mark.timeout(90)


def out_of_range(original: Any, *arguments: Any) -> Any:
    sent = original(*arguments)
    return {**sent, "rows": [{**facts, "rows": -1} for facts in sent["rows"]]}


def endless(original: Any, *arguments: Any) -> bytes:
    return bytes(5 << 20)


def around(change: Callable[..., Any]) -> Callable[..., Any]:
    """Makes of a function one that changes what it returns."""
    return lambda original: lambda *arguments: change(original, *arguments)


UNREADABLE = "rank 1 sent what cannot be read", "All ranks must run the same version of lightning-retrieval-guard"
VERSIONS = (f"{exchange.VERSION} on rank(s) 0; {exchange.VERSION}.1 on rank(s) 1",)
CHANGES: dict[str, tuple[Any, str, Any, tuple[str, ...]]] = {
    "out-of-range": (RankSources, "to_payload", around(out_of_range), UNREADABLE),
    "too-long": (exchange, "_compress", around(endless), UNREADABLE),
    "another version": (exchange, "VERSION", "{}.1".format, VERSIONS),
}
CHANGED = pytest.mark.parametrize("change", CHANGES)


def send(mode: str, change: str) -> Shown:
    """Validate on this rank, where rank one sends something wrong, or runs another version."""
    guard, module = guards(mode, {}), Sharded()
    trainer = make_trainer(guard, False)
    with recorded_warnings() as warned, pytest.MonkeyPatch.context() as patch:
        if trainer.global_rank == 1:
            owner, name, changed, _ = CHANGES[change]
            patch.setattr(owner, name, changed(getattr(owner, name)))
        trainer.validate(module, verbose=False)
    return shown_by(trainer, guard, warned, {"traces": traces(trainer, module)})


@pytest.mark.parametrize("mode", ["warn", "correct"])
@CHANGED
def test_all_ranks_step_aside_together(pool: Pool, change: str, mode: str) -> None:
    plain, (first, second) = on_ranks(pool, Sharded), pool.values(f"{__name__}:send", mode=mode, change=change)
    assert [first.numbers, second.numbers] == [one.numbers for one in plain]
    [finding] = first.findings
    assert finding.code == "LRG901"
    assert finding.ranks == (1,) or change == "another version"
    assert second.findings == first.findings
    [said] = first.said
    assert all(text in said for text in CHANGES[change][-1])
    assert not second.said
    assert first.kept == second.kept == {"traces": []}


@CHANGED
def test_strict_raises_on_every_rank(pool: Pool, change: str) -> None:
    for outcome in pool.run(f"{__name__}:send", mode="strict", change=change):
        assert "GuardError" in outcome.error_types, str(outcome)
        assert "LRG901" in outcome.error or change == "another version"
        assert CHANGES[change][-1][0] in outcome.error
