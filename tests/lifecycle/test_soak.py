"""Nothing grows over some dozen epochs; `python -m tests.soak` takes thousands."""

from __future__ import annotations

import pytest

from tests.distributed.harness import Pool
from tests.soak import HALVES, Usage, growth, soak, table

EPOCHS = {"one run": 50, "many runs": 40}
USED = Usage(memory=100.0, files=3, threads=2, groups=1, patched=0, objects=9, tensors=4)


@pytest.mark.timeout(200)
@pytest.mark.parametrize("half", HALVES)
def test_nothing_grows(pool: Pool, half: str) -> None:
    ranks = soak(pool, half, EPOCHS[half])
    print(table(half, ranks))
    assert [growth(half, usages) for usages in ranks] == [[], []]


@pytest.mark.parametrize("name", ["files", "threads", "groups", "objects", "tensors"])
def test_what_grows_from_moment_to_moment_is_told(name: str) -> None:
    counts = [Usage(**{**vars(USED), name: getattr(USED, name) + more}) for more in range(3)]
    [sentence] = growth("many runs", counts)
    assert sentence.endswith(" ".join(str(getattr(usage, name)) for usage in counts))
    assert growth("many runs", [USED] * 3) == []


@pytest.mark.parametrize(("last", "sentences"), [(103.0, []), (120.0, ["resident memory, MiB: 100.0 to 120.0"])])
def test_memory_that_grows_is_told(last: float, sentences: list[str]) -> None:
    assert growth("many runs", [USED, USED, Usage(**{**vars(USED), "memory": last})]) == sentences


def test_patches_belong_to_a_run() -> None:
    patched = Usage(**{**vars(USED), "patched": 18})
    assert growth("many runs", [patched] * 3) == ["patched attributes: 18"]
    assert growth("one run", [patched] * 3) == []
    assert growth("one run", [USED] * 3) == ["patched attributes: 0"]
