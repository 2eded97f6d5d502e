"""Strict ends the job with its error and correct with the right number, however the processes were started."""

from __future__ import annotations

import contextlib
import functools
import json
import os
import re
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from torchmetrics.retrieval import RetrievalRecall

from .program import pairs, rows_of

PROGRAM = Path(__file__).with_name("program.py")
MARK = "RETRIEVAL_GUARD_TEST_JOB"
LIMIT = 60  # seconds for one run of the script's trainer
# Of these, torchrun starts the processes itself; the others are started by Lightning.
STRATEGIES = {
    "ddp_fork": "ddp_fork",
    "ddp_spawn": "ddp_spawn",
    "script": "ddp",
    "torchrun": "ddp",
}
# Which launcher was used makes no difference to what happens without a guard.
MODES = dict.fromkeys(STRATEGIES, ("correct", "strict")) | {"ddp_fork": ("none", "correct", "strict")}
LAUNCHERS = pytest.mark.parametrize("launcher", STRATEGIES)


@dataclass(frozen=True)
class Job:
    """How a job ended."""

    returncode: int
    stdout: str
    stderr: str
    ended: float
    left: list[int]

    def witnesses(self, mode: str) -> list[dict[str, Any]]:
        """What every rank wrote in this mode, in order of rank."""
        lines = [line for line in self.stderr.splitlines() if line.startswith("witness ")]
        told = [json.loads(line.partition(" ")[2]) for line in lines]
        return sorted((one for one in told if one["mode"] == mode), key=lambda one: one["rank"])

    def returned(self, mode: str) -> list[float]:
        """What `validate` returned in this mode, in each process that runs the script to its end."""
        told = [json.loads(one) for one in re.findall(r"{.*?}", self.stdout)]
        return [one["recall"] for one in told if one["mode"] == mode]

    def __str__(self) -> str:
        return f"exit code {self.returncode}\n{self.stdout}\n{self.stderr}"


def start(launcher: str) -> Job:
    """Run the script in processes of its own: with correct, and then with strict."""
    interpreter = [sys.executable]
    if launcher == "torchrun":
        interpreter += ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    mark = uuid.uuid4().hex
    ranks = ("RANK", "LOCAL_RANK", "WORLD_SIZE")
    environment = {name: value for name, value in os.environ.items() if name not in ranks}
    environment |= {MARK: mark, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(sys.path)}
    limit = LIMIT * len(MODES[launcher])
    process = subprocess.Popen(
        [*interpreter, str(PROGRAM), STRATEGIES[launcher], *MODES[launcher]],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        stdout, stderr = process.communicate(timeout=limit)
    except subprocess.TimeoutExpired:
        kill(processes_of(mark))
        stdout, stderr = process.communicate()
        pytest.fail(f"{launcher} still ran after {limit} s\n{stdout}\n{stderr}")
    ended = time.time()
    left = still_running(mark)
    kill(left)
    return Job(process.returncode, stdout, stderr, ended, left)


def processes_of(mark: str) -> list[int]:
    """The processes whose environment carries the mark of this job."""
    return [pid for pid, environment in environments() if f"{MARK}={mark}".encode() in environment.split(b"\0")]


def environments() -> Iterator[tuple[int, bytes]]:
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            yield int(folder.name), (folder / "environ").read_bytes()


def still_running(mark: str, grace: float = 3.0) -> list[int]:
    """What has not ended some seconds after the job."""
    deadline = time.monotonic() + grace
    while (left := processes_of(mark)) and time.monotonic() < deadline:
        time.sleep(0.1)
    return left


def kill(pids: list[int]) -> None:
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


@pytest.fixture(scope="module")
def job() -> Callable[[str], Job]:
    """`job(launcher)`: how its job ended; it is run once."""
    return functools.cache(start)


@pytest.fixture(scope="module")
def reference() -> float:
    """The number of one process."""
    metric = RetrievalRecall(top_k=1)
    metric.update(*rows_of(*pairs()))
    return float(metric.compute())


pytestmark = [
    pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="finds processes through /proc"),
    pytest.mark.timeout(4 * LIMIT),
]


@LAUNCHERS
def test_strict_ends_the_job_with_the_error_of_every_rank(
    job: Callable[[str], Job], reference: float, launcher: str
) -> None:
    ended = job(launcher)
    assert ended.returncode == 1, ended
    told = ended.witnesses("strict")
    assert [one["rank"] for one in told] == [0, 1], ended
    for one in told:
        assert one["what"] == "GuardError"
        assert "program.py:" in one["value"]
        assert "LRG201 gathered-before-sync" in one["value"]
        numbers = f"Logged {reference / 2:.4f}, reference {reference:.4f} (1/2 of the reference: the number of ranks)."
        assert numbers in one["value"]
        assert "build the metric with sync_on_compute=False" in one["value"]
    assert "GuardError: " in ended.stderr.partition("witness")[2], ended
    assert "strict" not in ended.stdout, ended


@LAUNCHERS
def test_the_job_ends_within_seconds_of_the_error(job: Callable[[str], Job], launcher: str) -> None:
    ended = job(launcher)
    first = min(one["time"] for one in ended.witnesses("strict"))
    assert ended.ended - first < 15, ended


@LAUNCHERS
def test_nothing_is_left_running(job: Callable[[str], Job], launcher: str) -> None:
    assert not job(launcher).left, job(launcher)


@LAUNCHERS
def test_correct_ends_with_the_reference(job: Callable[[str], Job], reference: float, launcher: str) -> None:
    ended = job(launcher)
    expected = pytest.approx(reference, abs=1e-6)
    assert [one["value"] for one in ended.witnesses("correct")] == [expected] * 2, ended
    assert ended.returned("correct"), ended
    assert all(value == expected for value in ended.returned("correct")), ended


def test_without_a_guard_the_number_is_wrong(job: Callable[[str], Job], reference: float) -> None:
    ended = job("ddp_fork")
    assert [one["value"] for one in ended.witnesses("none")] == [pytest.approx(reference / 2, abs=1e-6)] * 2, ended
    assert 0 < reference < 1
