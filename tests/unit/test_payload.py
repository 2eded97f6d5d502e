"""What another rank sends is read, or refused in one way; nothing else happens, whatever it is."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
import torch
import torch.distributed as dist
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torchmetrics.retrieval import RetrievalMRR

from lightning_retrieval_guard.distributed import exchange as exchanging
from lightning_retrieval_guard.distributed.exchange import ExchangeError, GroupExchange
from lightning_retrieval_guard.distributed.payload import ProtocolError, read_all
from lightning_retrieval_guard.distributed.store import RankStore
from lightning_retrieval_guard.epoch.facts import KeyFacts, SourceFacts
from lightning_retrieval_guard.epoch.row_facts import RowFacts
from lightning_retrieval_guard.run.synchronize import RankSources

from .simulated import decide, make_rank, update

ROWS = RowFacts(updates=2, rows=9, queries=4, chunks=5, id_min=3, id_max=8)
SOURCE = SourceFacts(rows=0, metric="RetrievalMRR", path="a.py", line=3, group=(0, 1), suppressed=("LRG203",))
FRAME = 384
KEY = KeyFacts("validation_step.mrr", "mrr", "validation_step", "a.py", 3, "metric", value=0.5, weight=2.0)


def message(**changed: Any) -> dict[str, Any]:
    """What a rank tells, as JSON gives it to the others."""
    payload = {
        "batches": 2,
        "samples": 8,
        "repeated": 0,
        "monitored": ["mrr"],
        "more": True,
        "keys": [KEY.to_payload()],
        "rows": [ROWS.to_payload()],
        "sources": {"mrr": SOURCE.to_payload()},
    }
    return json.loads(json.dumps(payload | changed))


def read(messages: list[Any]) -> list[RankSources]:
    """What all ranks make of the messages of all."""
    return read_all(lambda message: RankSources.from_payload(message, len(messages)), messages)


class Wire(GroupExchange):
    """Two ranks without processes: what the other one sends is given."""

    def __init__(self) -> None:
        self.rank, self.world_size, self._frame_bytes, self._meetings = 0, 2, FRAME, 0
        self._timeout = timedelta(seconds=1)
        self._store = RankStore(dist.HashStore(), "wire", self.rank, self.world_size)
        self.sent: list[Tensor] = []
        self.spoil = bytes
        self.longest = 0

    def _all_gather(self, block: Tensor) -> list[Tensor]:
        self.longest = max(self.longest, block.numel())
        other = self.spoil(bytes(block.tolist()))[: block.numel()].ljust(block.numel(), b"\0")
        return [block, torch.frombuffer(bytearray(other), dtype=torch.uint8)]


def test_what_a_rank_tells_is_read() -> None:
    assert Wire().meet("here", message()) == [message(), message()]
    sources = RankSources([ROWS], {"mrr": replace(SOURCE, suppressed=["LRG203"])})
    assert read([message(), message()]) == [sources, sources]


@settings(deadline=None)  # a length may ask for a few megabytes
@given(st.lists(st.tuples(st.integers(0, 383), st.integers(1, 255)), min_size=1, max_size=6))
def test_spoilt_bytes_are_refused(changes: list[tuple[int, int]]) -> None:
    def spoil(frame: bytes) -> bytes:
        spoilt = bytearray(frame)
        for index, change in changes:
            spoilt[index % len(spoilt)] ^= change
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
        lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
        max_leaves=8,
    )
)
def test_any_json_is_refused(payload: Any) -> None:
    check(lambda frame: framed(json.dumps(["here", payload]).encode()))


def framed(text: bytes) -> bytes:
    block = exchanging._compress(text)
    return len(block).to_bytes(4, "little") + block


def check(spoil: Any) -> None:
    """The message stays as it was, or all ranks refuse it; the memory is that of messages."""
    wire = Wire()
    wire.spoil = spoil
    try:
        messages = wire.meet("here", message())
        read(messages)
    except (ProtocolError, ExchangeError):
        pass
    else:
        assert messages[1] == message()
    assert wire.longest <= exchanging._MOST_BYTES + 4


def test_a_length_beyond_reason_allocates_nothing() -> None:
    wire = Wire()
    wire.spoil = lambda frame: b"\xff\xff\xff\xff" + frame[4:]
    with pytest.raises(ProtocolError, match=r"rank 1 sent what cannot be read: 4294967295 bytes\. All ranks must run"):
        wire.meet("here", message())
    assert wire.longest == FRAME


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


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ({"rows": []}, "a metric has rows or numbers that there are not"),
        ({"rows": [ROWS.to_payload() | {"rows": -1}]}, "a number of rows or queries is out of range"),
        ({"rows": [ROWS.to_payload() | {"queries": -1}]}, "a number of rows or queries is out of range"),
        ({"rows": [ROWS.to_payload() | {"rows": 2**50}]}, "a number of rows or queries is out of range"),
        ({"rows": [ROWS.to_payload() | {"queries": 10}]}, "a number of rows or queries is out of range"),
        ({"rows": [ROWS.to_payload() | {"chunks": 3}]}, "a number of rows or queries is out of range"),
        ({"rows": [ROWS.to_payload() | {"longest_query": 10}]}, "a query has more rows than there are"),
        ({"rows": [ROWS.to_payload() | {"longest_chunk": 10}]}, "a query has more rows than there are"),
        ({"rows": [ROWS.to_payload() | {"extra": 1}]}, "extra"),
        ({"rows": [ROWS.to_payload() | {"rows": "9"}]}, "not supported between"),
        ({"rows": [1]}, "not a mapping"),
        ({"sources": {"mrr": SOURCE.to_payload() | {"rows": -1}}}, "a metric has rows or numbers that there are not"),
        ({"sources": {"mrr": SOURCE.to_payload() | {"rows": 1}}}, "a metric has rows or numbers that there are not"),
        (
            {"sources": {"mrr": SOURCE.to_payload() | {"columns": 2**40}}},
            "a metric has rows or numbers that there are not",
        ),
        ({"sources": {"mrr": SOURCE.to_payload() | {"group": [0, 2]}}}, "a group has ranks that there are not"),
        ({"sources": {"mrr": SOURCE.to_payload() | {"group": [1, 0]}}}, "a group has ranks that there are not"),
        ({"sources": {"mrr": SOURCE.to_payload() | {"group": [0, 0]}}}, "a group has ranks that there are not"),
        ({"sources": {"mrr": SOURCE.to_payload() | {"group": []}}}, "a group has ranks that there are not"),
        ({"sources": [1]}, "items"),
    ],
    ids=str,
)
def test_what_cannot_be_is_refused_with_the_reason(changed: dict[str, Any], reason: str) -> None:
    with pytest.raises(ProtocolError) as caught:
        read([message(), message(**changed)])
    assert list(caught.value.reasons) == [1]
    assert reason in caught.value.reasons[1]


def test_a_part_that_is_missing_is_refused() -> None:
    sent = message()
    del sent["rows"]
    with pytest.raises(ProtocolError, match="rank 1"):
        read([message(), sent])


def test_a_summary_of_more_rows_than_its_rank_has_is_refused() -> None:
    rank = make_rank([[update([0, 0], [0.9, 0.1], [1, 0])]], RetrievalMRR(), 2)
    other = make_rank([[update([0, 0], [0.8, 0.2], [1, 0])]], RetrievalMRR(), 2)
    decide([rank, other], RetrievalMRR())
    blocks = [one.group.pack_summary() for one in (rank, other)]
    words = blocks[1].view(torch.int64)
    words[3] += 1 << 32  # a row more
    with pytest.raises(ProtocolError, match="rank 1 sent what cannot be read: its queries have more rows than it has"):
        rank.group.compare(blocks)
