"""Several trainers, several guards, and guards that come from the environment."""

from __future__ import annotations

from importlib.metadata import entry_points
from typing import Any

import pytest

from lightning_retrieval_guard import GuardError, GuardWarning, RetrievalGuard
from lightning_retrieval_guard.environment import VARIABLE, callbacks_from_environment

from .programs import Restarting, make_trainer, merged, reference

RIGHT = pytest.approx(reference(), abs=1e-6)


def validated(trainer: Any, module: Any = None) -> float:
    [returned] = trainer.validate(module or Restarting(), verbose=False)
    return returned["mrr"]


def guards_of(trainer: Any) -> list[RetrievalGuard]:
    return [callback for callback in trainer.callbacks if isinstance(callback, RetrievalGuard)]


def test_a_guard_inside_another_ones_run() -> None:
    """The outer run has no guard, and is not touched when the inner one's guard goes."""
    inner = RetrievalGuard(mode="correct")

    class Nested(Restarting):
        def on_validation_epoch_end(self) -> None:
            self.inner = validated(make_trainer(inner))

    module = Nested()
    with pytest.warns(GuardWarning, match="LRG301"):
        assert validated(make_trainer(), module) == merged()
    assert module.inner == RIGHT


def test_two_trainers_with_a_guard_each_take_turns() -> None:
    first, second = RetrievalGuard(mode="correct"), RetrievalGuard(mode="warn")
    trainers = make_trainer(first), make_trainer(second)
    with pytest.warns(GuardWarning, match="LRG301"):
        numbers = [validated(trainer) for trainer in (*trainers, *trainers)]
    assert numbers == [RIGHT, merged(), RIGHT, merged()]
    [finding], [other] = first.findings, second.findings
    assert (finding.corrected, other.corrected) == (True, False)
    assert (finding.count, other.count) == (2, 2)


def test_each_guard_says_it_once() -> None:
    guard = RetrievalGuard()
    trainer = make_trainer(guard)
    with pytest.warns(GuardWarning) as said:
        numbers = [validated(trainer) for _ in range(2)]
    assert numbers == [merged()] * 2
    assert len([warning for warning in said if warning.category is GuardWarning]) == 1


def test_two_guards_are_refused() -> None:
    with pytest.raises(GuardError, match="more than one RetrievalGuard"):
        validated(make_trainer(RetrievalGuard(), RetrievalGuard(mode="correct")))


# --- from the environment ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["warn", "correct", "strict"])
def test_the_variable_makes_a_guard(monkeypatch: pytest.MonkeyPatch, mode: str) -> None:
    monkeypatch.setenv(VARIABLE, mode)
    [guard] = callbacks_from_environment()
    assert guard.settings.mode == mode
    assert guard.from_environment


@pytest.mark.parametrize("value", [None, ""])
def test_without_the_variable_there_is_none(monkeypatch: pytest.MonkeyPatch, value: str | None) -> None:
    monkeypatch.delenv(VARIABLE, raising=False)
    if value is not None:
        monkeypatch.setenv(VARIABLE, value)
    assert callbacks_from_environment() == []
    assert guards_of(make_trainer()) == []


def test_both_packages_ask_for_it() -> None:
    groups = ("lightning.pytorch.callbacks_factory", "pytorch_lightning.callbacks_factory")
    for group in groups:
        [entry] = [entry for entry in entry_points(group=group) if entry.name == "lightning_retrieval_guard"]
        assert entry.load() is callbacks_from_environment


def test_the_one_given_in_code_wins(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, "correct")
    given = RetrievalGuard(mode="warn")
    trainer = make_trainer(given)
    assert len(guards_of(trainer)) == 2
    with pytest.warns(GuardWarning, match="LRG301") as said:
        assert validated(trainer) == merged()
    assert len([warning for warning in said if warning.category is GuardWarning]) == 1
    assert len(given.findings) == 1
    assert [guard.findings for guard in guards_of(trainer) if guard is not given] == [[]]
