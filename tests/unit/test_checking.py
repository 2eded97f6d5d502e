"""What another rank sends is read, or refused in one way; nothing else happens, whatever it is."""

from __future__ import annotations

import json
import zlib
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
import torch
import torch.distributed as dist
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from lightning_retrieval_guard.distributed import exchange as exchanging
from lightning_retrieval_guard.distributed.exchange import ExchangeError, GroupExchange
from lightning_retrieval_guard.distributed.payload import ProtocolError
from lightning_retrieval_guard.distributed.store import RankStore
from lightning_retrieval_guard.epoch.facts import KeyFacts, SourceFacts, Unregistered
from lightning_retrieval_guard.epoch.packing import PackedQueries, Summary
from lightning_retrieval_guard.epoch.payload import to_payload
from lightning_retrieval_guard.epoch.plan import make_plan
from lightning_retrieval_guard.epoch.row_facts import RowFacts
from lightning_retrieval_guard.run.checking import check_messages
from lightning_retrieval_guard.run.synchronize import VOCABULARY

ROWS = RowFacts(updates=2, rows=9, queries=4, pieces=5, id_min=3, id_max=8, sketch=(1, 2), shares=((1, 2), (3, 7)))
SOURCE = SourceFacts(rows=0, metric="RetrievalMRR", path="a.py", line=3, group=(0, 1), suppressed=("LRG203",))
KEY = KeyFacts("validation_step.mrr", "mrr", "validation_step", "a.py", 3, "metric", value=0.5, weight=2.0)


def message(**changed: Any) -> dict[str, Any]:
    """What a rank tells, as JSON gives it to the others."""
    told = {
        "batches": 2,
        "samples": 8,
        "repeated": 0,
        "monitored": ["mrr"],
        "more": True,
        "keys": [KEY.to_payload()],
        "rows": [ROWS.to_payload()],
        "sources": {"mrr": SOURCE.to_payload()},
        "unregistered": [to_payload(Unregistered("m", "RetrievalMRR", "a.py", 3))],
    }
    return json.loads(json.dumps(told | changed))


class Wire(GroupExchange):
    """Two ranks without processes: what the other one sends is given."""

    def __init__(self) -> None:
        self.rank, self.world_size, self._frame_bytes, self._meetings = 0, 2, 384, 0
        self._timeout = timedelta(seconds=1)
        self._board = RankStore(dist.HashStore(), "wire", self.rank, self.world_size)
        self.vocabulary = VOCABULARY
        self.sent: list[Tensor] = []
        self.spoil = bytes
        self.longest = 0

    def _all_gather(self, block: Tensor) -> list[Tensor]:
        self.longest = max(self.longest, block.numel())
        other = self.spoil(bytes(block.tolist()))[: block.numel()].ljust(block.numel(), b"\0")
        return [block, torch.frombuffer(bytearray(other), dtype=torch.uint8)]


def test_what_a_rank_tells_is_read() -> None:
    assert Wire().meet("here", message()) == [message(), message()]
    check_messages([message(), message()])


@settings(deadline=None)  # a length may ask for a few megabytes
@given(st.lists(st.tuples(st.integers(0, 383), st.integers(1, 255)), min_size=1, max_size=6))
def test_spoilt_bytes_are_refused(changes: list[tuple[int, int]]) -> None:
    def spoil(frame: bytes) -> bytes:
        spoilt = bytearray(frame)
        for place, change in changes:
            spoilt[place % len(spoilt)] ^= change
        return bytes(spoilt)

    check(spoil)


@settings(deadline=None)
@given(st.binary(max_size=384))
def test_any_bytes_are_refused(other: bytes) -> None:
    check(lambda frame: other)


@given(st.binary(max_size=300))
def test_any_text_is_refused(text: bytes) -> None:
    check(lambda frame: framed(text))


@given(
    st.recursive(
        st.none() | st.integers() | st.floats() | st.text(),
        lambda own: st.lists(own) | st.dictionaries(st.text(), own),
        max_leaves=8,
    )
)
def test_any_json_is_refused(told: Any) -> None:
    check(lambda frame: framed(json.dumps(["here", told]).encode()))


def framed(text: bytes) -> bytes:
    block = Wire()._compress(text)
    return len(block).to_bytes(4, "little") + block


def check(spoil: Any) -> None:
    """The message stays as it was, or all ranks refuse it; the memory is that of messages."""
    wire = Wire()
    wire.spoil = spoil
    try:
        told = wire.meet("here", message())
        check_messages(told)
    except (ProtocolError, ExchangeError):
        pass
    else:
        assert told[1] == message()
    assert wire.longest <= exchanging._MOST_BYTES + 4


def test_a_length_beyond_reason_allocates_nothing() -> None:
    wire = Wire()
    wire.spoil = lambda frame: b"\xff\xff\xff\xff" + frame[4:]
    with pytest.raises(ProtocolError, match=r"rank 1 sent what cannot be read: 4294967295 bytes\. All ranks must run"):
        wire.meet("here", message())
    assert wire.longest == 384


def test_a_small_message_that_becomes_a_large_one_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exchanging, "_MOST_TEXT_BYTES", 10_000)
    wire = Wire()
    wire.spoil = lambda frame: framed(b"0" * 20_000)
    with pytest.raises(ProtocolError, match="it is not whole"):
        wire.meet("here", message())


def test_deep_nesting_is_refused() -> None:
    wire = Wire()
    wire.spoil = lambda frame: framed(b"[" * 100_000)
    with pytest.raises(ProtocolError, match="rank 1"):
        wire.meet("here", message())


def test_another_version_has_other_words() -> None:
    wire = Wire()
    press = zlib.compressobj(zdict=b"other words")
    block = press.compress(json.dumps(["here", message()]).encode()) + press.flush()
    wire.spoil = lambda frame: len(block).to_bytes(4, "little") + block
    with pytest.raises(ProtocolError, match="same version of lightning-retrieval-guard"):
        wire.meet("here", message())


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ({"batches": -1}, "'batches' is out of range"),
        ({"batches": True}, "'batches' is bool"),
        ({"samples": 2**64}, "'samples' is out of range"),
        ({"samples": 1.5}, "'samples' is float"),
        ({"monitored": [1]}, "'monitored' is list"),
        ({"keys": {}}, "'keys' is dict"),
        ({"extra": 1}, "another"),
        ({"keys": [KEY.to_payload() | {"extra": 1}]}, "KeyFacts has a field that is not known"),
        ({"keys": [{"name": "mrr"}]}, "KeyFacts lacks a field"),
        ({"keys": [KEY.to_payload() | {"kind": "other"}]}, "KeyFacts.kind is str"),
        ({"keys": [KEY.to_payload() | {"calls": "1"}]}, "KeyFacts.calls is str"),
        ({"rows": []}, "a metric has rows that are not told of"),
        ({"rows": [ROWS.to_payload() | {"rows": -1}]}, "a number of rows is out of range"),
        ({"rows": [ROWS.to_payload() | {"queries": 2**50}]}, "a number of rows is out of range"),
        ({"rows": [ROWS.to_payload() | {"queries": 10}]}, "it has more queries than rows"),
        ({"rows": [ROWS.to_payload() | {"pieces": 3}]}, "it has more queries than updates hold"),
        ({"rows": [ROWS.to_payload() | {"id_max": 2**63}]}, "an id is out of range"),
        ({"rows": [ROWS.to_payload() | {"sketch": [2**70]}]}, "an id is out of range"),
        ({"rows": [ROWS.to_payload() | {"shares": [[1]]}]}, "RowFacts.shares is list"),
        ({"rows": [ROWS.to_payload() | {"shares": [[1, 1]] * 3}]}, "more ranks than there are"),
        ({"rows": [ROWS.to_payload() | {"shares": [[1, 9], [1, 9]]}]}, "shares too many"),
        ({"rows": [ROWS.to_payload() | {"shares": [[5, 9], [-1, 0]]}]}, "shares too many"),
        ({"sources": {"mrr": SOURCE.to_payload() | {"rows": -1}}}, "a metric has rows that are not told of"),
        ({"sources": {"mrr": SOURCE.to_payload() | {"columns": 2**40}}}, "a metric has too many numbers"),
        ({"sources": {"mrr": SOURCE.to_payload() | {"group": [0, 2]}}}, "a group has ranks that there are not"),
        ({"sources": {"mrr": SOURCE.to_payload() | {"group": [1, 0]}}}, "a group has ranks that there are not"),
        ({"sources": {"mrr": SOURCE.to_payload() | {"group": []}}}, "a group has ranks that there are not"),
        ({"sources": {"mrr": 1}}, "'sources' is dict"),
        ({"unregistered": [{"name": "m"}]}, "Unregistered lacks a field"),
    ],
    ids=str,
)
def test_what_cannot_be_is_refused_with_the_reason(changed: dict[str, Any], reason: str) -> None:
    with pytest.raises(ProtocolError) as caught:
        check_messages([message(), message(**changed)])
    assert list(caught.value.reasons) == [1]
    assert reason in caught.value.reasons[1]


def test_a_part_that_is_missing_is_refused() -> None:
    told = message()
    del told["batches"]
    with pytest.raises(ProtocolError, match="it lacks a part"):
        check_messages([told])


COUNTS = ["updates", "rows", "queries", "pieces", "longest_query", "longest_piece", "restarts", "spans"]


@given(st.dictionaries(st.sampled_from([*COUNTS, "id_min", "id_max", "id_step", "fingerprint"]), st.integers()))
def test_what_is_let_through_makes_a_plan(changed: dict[str, int]) -> None:
    try:
        check_messages([message(), message(rows=[ROWS.to_payload() | changed])])
    except ProtocolError:
        return
    for scope in ("auto", "global", "batch", "as given"):
        make_plan([ROWS, replace(ROWS, **changed)], scope, 0, True, True)


def test_rows_without_their_query_are_refused() -> None:
    words = torch.zeros(4, 2, dtype=torch.int64)
    parcel = PackedQueries(Summary(words), torch.tensor([0, 2]), torch.zeros(2).double(), torch.zeros(2))
    with pytest.raises(ValueError, match="rows came without their query"):
        PackedQueries.unpack(parcel.pack(2, 2), 2, 2)


def test_the_number_of_samples_may_be_unknown() -> None:
    check_messages([message(), message(samples=None)])
