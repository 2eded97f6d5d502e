"""Strict ends the job with its error and correct with the right number, however the processes were started."""

from __future__ import annotations

import contextlib
import functools
import json
import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch.distributed.fsdp
from lightning.pytorch import Trainer, strategies
from torchmetrics.retrieval import RetrievalRecall

from .program import pairs, rows_of

PROGRAM = Path(__file__).with_name("program.py")
MARK = "RETRIEVAL_GUARD_TEST_JOB"
LIMIT = 150  # seconds for one run of the script's trainer, on a machine that does much else
ERROR_TO_END = 10  # seconds; one of them is the time that a rank gives the others to tell of their error
# torchrun starts the processes itself, two nodes are two agents of it; the others are started by Lightning.
STRATEGIES = {
    "ddp_fork": "ddp_fork",
    "ddp_spawn": "ddp_spawn",
    "script": "ddp",
    "torchrun": "ddp",
    "two nodes": "ddp",
    "fully sharded": "fully_shard",
    "one device": "auto",
}
# Which launcher was used makes no difference to what happens without a guard.
# Spawned processes import everything anew for each mode; numbers come back from them as from forked ones.
MODES = dict.fromkeys(STRATEGIES, ("correct", "strict")) | {
    "ddp_fork": ("none", "correct", "strict"),
    "ddp_spawn": ("strict",),
}
# Two nodes need all that torchrun does on one; one device is what most other tests use.
REPEATS = ("torchrun", "one device")
HAS_FULLY_SHARDED = hasattr(strategies, "ModelParallelStrategy") and hasattr(torch.distributed.fsdp, "fully_shard")


def marks_of(launcher: str) -> list[pytest.MarkDecorator]:
    older = pytest.mark.skipif(launcher == "fully sharded" and not HAS_FULLY_SHARDED, reason="older")
    return [older, pytest.mark.nightly] if launcher in REPEATS else [older]


def launchers(mode: str) -> pytest.MarkDecorator:
    """Parametrize by every launcher that is run in this mode."""
    names = [name for name in STRATEGIES if mode in MODES[name]]
    return pytest.mark.parametrize("launcher", [pytest.param(name, marks=marks_of(name)) for name in names])


@dataclass(frozen=True)
class Job:
    """How a job ended.

    Attributes:
        returncode: Of its first process.
        stdout: Of all processes.
        stderr: Of all processes.
        gone: When each process of a rank was gone.
        left: The processes that were not.
    """

    returncode: int
    stdout: str
    stderr: str
    gone: dict[int, float]
    left: list[int]

    def witnesses(self, mode: str) -> list[dict[str, Any]]:
        """What every rank wrote in this mode, in order of rank."""
        return sorted((one for one in witnesses_in(self.stderr) if one["mode"] == mode), key=lambda one: one["rank"])

    def returned(self, mode: str) -> list[float]:
        """What `validate` returned in this mode, in each process that runs the script to its end."""
        told = [json.loads(one) for one in re.findall(r"{.*?}", self.stdout)]
        return [one["recall"] for one in told if one["mode"] == mode]

    def __str__(self) -> str:
        return f"exit code {self.returncode}\n{self.stdout}\n{self.stderr}"


def witnesses_in(stderr: str) -> list[dict[str, Any]]:
    lines = [line for line in stderr.splitlines(keepends=True) if line.startswith("witness ") and line.endswith("}\n")]
    return [json.loads(line.partition(" ")[2]) for line in lines]


def commands_of(launcher: str) -> list[list[str]]:
    """What is typed, for each node."""
    program = [str(PROGRAM), STRATEGIES[launcher], *MODES[launcher]]
    agent = [sys.executable, "-m", "torch.distributed.run"]
    if launcher == "torchrun":
        return [[*agent, "--standalone", "--nproc-per-node", "2", *program]]
    if launcher == "two nodes":
        meeting = ["--nnodes", "2", "--nproc-per-node", "1", "--master-addr", "127.0.0.1", "--master-port", free_port()]
        return [[*agent, *meeting, "--node-rank", str(node), *program] for node in range(2)]
    return [[sys.executable, *program]]


def free_port() -> str:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return str(listener.getsockname()[1])


def start(launcher: str) -> Job:
    """Run the script in processes of its own: with correct, and then with strict."""
    mark = uuid.uuid4().hex
    ranks = ("RANK", "LOCAL_RANK", "WORLD_SIZE")
    environment = {name: value for name, value in os.environ.items() if name not in ranks}
    environment |= {MARK: mark, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(sys.path)}
    with tempfile.TemporaryDirectory(prefix="launch-") as folder:
        stdout, stderr = Path(folder, "stdout"), Path(folder, "stderr")
        with stdout.open("a") as out, stderr.open("a") as err:
            nodes = [
                subprocess.Popen(command, env=environment, stdout=out, stderr=err, start_new_session=True)
                for command in commands_of(launcher)
            ]
        gone = watch(nodes, stderr, LIMIT * len(MODES[launcher]))
        in_time = all(node.poll() is not None for node in nodes)
        left = still_running(mark) if in_time else processes_of(mark)
        kill(left)
        codes = [node.wait() for node in nodes]
        job = Job(max(codes), stdout.read_text(), stderr.read_text(), gone, left)
    if not in_time:
        pytest.fail(f"{launcher} still ran after its time\n{job}")
    return job


def watch(nodes: list[subprocess.Popen[bytes]], stderr: Path, limit: float) -> dict[int, float]:
    """Wait for the end of the job, and note when each process that told of itself was gone."""
    gone: dict[int, float] = {}
    deadline = time.monotonic() + limit
    ended = False
    while not ended and time.monotonic() < deadline:
        ended = all(node.poll() is not None for node in nodes)
        for process in {told["process"] for told in witnesses_in(stderr.read_text())} - gone.keys():
            if is_running(process):
                ended = False
            else:
                gone[process] = time.time()
        time.sleep(0.1)
    return gone


def is_running(process: int) -> bool:
    """Whether a process does more than to wait that its parent hears of its end."""
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


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


def in_halves() -> float:
    """The number where each half of the queries is asked for its own documents."""
    metric, columns = RetrievalRecall(top_k=1), pairs()
    for half in zip(*(column.chunk(2) for column in columns), strict=True):
        metric.update(*rows_of(*half))
    return float(metric.compute())


def ranks_of(launcher: str) -> list[int]:
    return [0] if launcher == "one device" else [0, 1]


pytestmark = [
    pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="finds processes through /proc"),
    pytest.mark.timeout(4 * LIMIT),
]


@launchers("strict")
def test_strict_ends_the_job_with_the_error_of_every_rank(
    job: Callable[[str], Job], reference: float, launcher: str
) -> None:
    ended = job(launcher)
    assert ended.returncode == 1, ended
    told = ended.witnesses("strict")
    assert [one["rank"] for one in told] == ranks_of(launcher), ended
    [message] = {" ".join(one["value"].split()) for one in told}
    assert {one["what"] for one in told} == {"GuardError"}
    assert "program.py:" in message
    if launcher == "one device":
        assert "LRG301 restarting-query-ids" in message
        assert "ids that are unique" in message
    else:
        assert "LRG201 gathered-before-sync" in message
        assert f"{reference / 2:.4f} {reference:.4f} 1/2: the number of ranks" in message
        assert "build the metric with sync_on_compute=False" in message
    assert "GuardError: " in ended.stderr.partition("witness")[2], ended
    assert "strict" not in ended.stdout, ended


@launchers("strict")
def test_every_rank_ends_within_seconds_of_its_error(job: Callable[[str], Job], launcher: str) -> None:
    ended = job(launcher)
    seconds = {one["rank"]: ended.gone[one["process"]] - one["time"] for one in ended.witnesses("strict")}
    assert list(seconds) == ranks_of(launcher), ended
    busy = max(1.0, os.getloadavg()[0] / (os.cpu_count() or 1))  # a process takes seconds of work to end
    assert max(seconds.values()) < ERROR_TO_END * busy, f"{seconds}\n{ended}"


@launchers("strict")
def test_nothing_is_left_running(job: Callable[[str], Job], launcher: str) -> None:
    assert not job(launcher).left, job(launcher)


@launchers("correct")
def test_correct_ends_with_the_reference(job: Callable[[str], Job], reference: float, launcher: str) -> None:
    ended = job(launcher)
    expected = pytest.approx(reference if launcher != "one device" else in_halves(), abs=1e-6)
    assert [one["value"] for one in ended.witnesses("correct")] == [expected] * len(ranks_of(launcher)), ended
    assert ended.returned("correct"), ended
    assert all(value == expected for value in ended.returned("correct")), ended


def test_without_a_guard_the_number_is_wrong(job: Callable[[str], Job], reference: float) -> None:
    ended = job("ddp_fork")
    assert [one["value"] for one in ended.witnesses("none")] == [pytest.approx(reference / 2, abs=1e-6)] * 2, ended
    assert 0 < reference < 1


def test_fsdp_needs_a_gpu() -> None:
    """Where a later Lightning runs it on the CPU, it belongs among the launchers."""
    with pytest.raises(ValueError, match=r"strategy `fsdp` requires a GPU accelerator"):
        Trainer(accelerator="cpu", devices=2, strategy="fsdp", logger=False)
