"""What a forked process found comes to the one that forked it."""

from __future__ import annotations

import copy
import json
import math
import os
import pickle
import stat
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from lightning_retrieval_guard.findings import Effect, GuardWarning, Numbers
from lightning_retrieval_guard.report.log import FindingLog, Handover

from .test_findings import FINDING


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr("tempfile.gettempdir", lambda: str(tmp_path))
    return tmp_path


def log_of(count: int) -> FindingLog:
    log = FindingLog()
    for _ in range(count):
        log.add([FINDING], say=False)
    return log


def in_child(action: Callable[[], object]) -> None:
    """Run in a forked process, and expect that it succeeds."""
    child = os.fork()
    if child == 0:
        try:
            action()
        except BaseException:
            os._exit(1)
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def test_what_a_child_gives_its_parent_takes_once(folder: Path) -> None:
    hands = Handover()
    assert hands.take() is None
    for count in (1, 2):
        in_child(lambda count=count: hands.give(log_of(count)))
        taken = hands.take()
        assert taken is not None
        assert [finding.count for finding in taken.findings] == [count]
        assert hands.take() is None
    [file] = folder.iterdir()
    assert stat.S_IMODE(file.stat().st_mode) == 0o600


def test_a_second_child_knows_what_the_first_gave() -> None:
    hands = Handover()
    in_child(lambda: hands.give(log_of(1)))

    def knows() -> None:
        taken = pickle.loads(pickle.dumps(hands)).take()
        assert taken is not None
        assert len(taken.findings) == 1

    in_child(knows)


def test_who_gives_has_nothing_to_take() -> None:
    hands = Handover()

    def gives() -> None:
        hands.give(log_of(1))
        assert hands.take() is None

    in_child(gives)


def test_the_caller_itself_writes_nothing(folder: Path) -> None:
    Handover().give(log_of(1))
    assert list(folder.iterdir()) == []


def test_the_file_is_gone_with_the_guard_and_not_with_a_child(folder: Path) -> None:
    holders = [Handover()]
    in_child(lambda: holders[0].give(log_of(1)))
    in_child(holders.clear)
    copy.deepcopy(holders[0])
    assert len(list(folder.iterdir())) == 1
    holders.clear()
    assert list(folder.iterdir()) == []


def test_a_failed_write_leaves_nothing(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hands = Handover()

    def full(*_: object) -> None:
        raise OSError("disk full")

    def fails() -> None:
        monkeypatch.setattr("json.dump", full)
        with pytest.raises(OSError, match="disk full"):
            hands.give(log_of(1))

    in_child(fails)
    assert list(folder.iterdir()) == []


def test_nothing_is_lost_on_the_way() -> None:
    log = FindingLog()
    wrong = replace(
        FINDING,
        effect=Effect(math.nan, math.inf),
        key="half \udc9b",
        target="storage",
        corrects="weight",
        updates=(("a.py", 3),),
    )
    log.stop([wrong, replace(wrong, stage="sanity_check", line=3)])
    log.end_epoch("validate", {"k": Numbers(math.inf, None, corrected=True)}, 1, 20)
    with pytest.warns(GuardWarning):
        log.add([wrong], say=True)
    payload = json.loads(json.dumps(log.to_payload()))
    assert json.dumps(FindingLog.from_payload(payload).to_payload()) == json.dumps(log.to_payload())
    again = FindingLog.from_payload(payload)
    assert repr(again.findings) == repr(log.findings)
    assert [one.updates for one in again.findings] == [one.updates for one in log.findings] == [(("a.py", 3),)] * 2
    assert again.history == log.history
    assert again.stopped == ("LRG201",)
    assert again.verdict == log.verdict
    again.add([wrong], say=True)  # it was said
