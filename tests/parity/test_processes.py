"""Processes: what they see of this one, that they are kept, and that none is left behind."""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from lightning_retrieval_guard.parity.check import ENVIRONMENT, PRELOADED, Processes
from lightning_retrieval_guard.parity.pool import Pool

HERE = f"{__package__}.{Path(__file__).stem}"
ROOT = str(Path(__file__).parents[2])


def surroundings() -> dict[str, object]:
    names = (
        "LIGHTNING_RETRIEVAL_GUARD",
        "CUDA_VISIBLE_DEVICES",
        "SLURM_NTASKS",
        "PL_GLOBAL_SEED",
        "OF_THE_USER",
        "RANK",
    )
    return {
        "pid": os.getpid(),
        "start_method": multiprocessing.get_start_method(),
        **{name: os.environ.get(name) for name in names},
    }


def sleep_with_a_child(told: str) -> None:
    """Tell the ids of this process and of one that it started, and stay."""
    ids = [os.getpid(), subprocess.Popen(["sleep", "600"]).pid]
    Path(told, os.environ["RANK"]).write_text(" ".join(map(str, ids)))
    time.sleep(600)


def runs(pid: int) -> bool:
    """Whether the process is there and no zombie."""
    status = Path(f"/proc/{pid}/stat")
    try:
        return status.read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def gone_after(seconds: float, pids: list[int]) -> bool:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if not any(map(runs, pids)):
            return True
        time.sleep(0.1)
    return False


def told_pids(folder: Path, count: int, seconds: float = 120.0) -> list[int]:
    """The ids that `count` ranks write, each its own and that of its child."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        pids = [int(pid) for file in folder.glob("[0-9]") for pid in file.read_text().split()]
        if len(pids) == 2 * count:
            return pids
        time.sleep(0.1)
    raise AssertionError(f"only {list(folder.iterdir())}")


needs_proc = pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="looks at processes in /proc")


@pytest.fixture
def pool() -> Iterator[Pool]:
    pool = Pool(2, ENVIRONMENT, PRELOADED)
    yield pool
    pool.close()


def test_processes_are_kept_and_see_a_world_of_their_own(pool: Pool, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("LIGHTNING_RETRIEVAL_GUARD", "SLURM_NTASKS", "PL_GLOBAL_SEED", "OF_THE_USER"):
        monkeypatch.setenv(name, "strict")
    first, second = (pool.run(f"{HERE}:surroundings", timeout=60.0) for _ in range(2))
    assert [outcome.value for outcome in first] == [outcome.value for outcome in second]
    default = multiprocessing.get_context().get_start_method()
    for rank, outcome in enumerate(first):
        assert outcome.value == {
            "pid": outcome.value["pid"],
            "start_method": default,
            "LIGHTNING_RETRIEVAL_GUARD": None,
            "CUDA_VISIBLE_DEVICES": "",
            "SLURM_NTASKS": None,
            "PL_GLOBAL_SEED": None,
            "OF_THE_USER": "strict",
            "RANK": str(rank),
        }


@needs_proc
def test_a_rank_that_hangs_is_ended_with_the_processes_that_it_started(pool: Pool, tmp_path: Path) -> None:
    pool.run(f"{HERE}:surroundings", timeout=60.0)  # so that starting does not count
    outcomes = pool.run(f"{HERE}:sleep_with_a_child", timeout=3.0, told=str(tmp_path))
    assert [outcome.status for outcome in outcomes] == ["killed", "killed"]
    assert gone_after(10.0, told_pids(tmp_path, 2))


@needs_proc
def test_closed_pools_leave_no_process(tmp_path: Path) -> None:
    with closing(Processes()) as processes:
        pids = [
            outcome.value["pid"]
            for size in (1, 2)
            for outcome in processes[size].run(f"{HERE}:surroundings", timeout=60.0)
        ]
        assert all(map(runs, pids))
    assert gone_after(10.0, pids)


SCRIPT = """
import signal

from lightning_retrieval_guard.parity.check import ENVIRONMENT, PRELOADED
from lightning_retrieval_guard.parity.pool import Pool

if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.default_int_handler)  # tests that run in the background inherit deafness
    pool = Pool(2, ENVIRONMENT, PRELOADED)
    pool.run("tests.parity.test_processes:surroundings", timeout=60)  # so that starting does not count
    pool.run("tests.parity.test_processes:sleep_with_a_child", timeout={timeout}, told={told!r})
    print("over", flush=True)
"""


@needs_proc
@pytest.mark.timeout(240)
@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGKILL, None], ids=str)
def test_processes_end_with_their_parent(how: signal.Signals | None, tmp_path: Path) -> None:
    """Also with one that forgets to close its pool; nothing is then left for it to wait for."""
    script = tmp_path / "script.py"
    script.write_text(SCRIPT.format(told=str(tmp_path), timeout=600 if how else 3))
    environment = {**os.environ, "PYTHONPATH": ROOT}
    parent = subprocess.Popen([sys.executable, str(script)], env=environment, cwd=ROOT, stderr=subprocess.DEVNULL)
    try:
        pids = told_pids(tmp_path, 2)
        if how is not None:
            parent.send_signal(how)
        assert (parent.wait(100) == 0) is (how is None)
        assert gone_after(15.0, pids)
    finally:
        parent.kill()
