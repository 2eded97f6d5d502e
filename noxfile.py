"""Tests in every supported pair of Lightning and torchmetrics, and on every Python: `nox -s compat unpinned page`.

One pair alone: `nox -s "compat(oldest)"`; after `--` other tests instead of these, which the page does not count.
Environments stay in `.nox`; `nox -r` uses them again.
"""

from __future__ import annotations

from pathlib import Path

import nox

# The oldest and the newest pair are the two ends of the supported ranges.
PAIRS = {
    "oldest": ("2.1.0", "1.2.0"),
    "oldest-torch": ("2.1.0", "1.2.0"),
    "2.2": ("2.2.5", "1.3.2"),
    "2.3": ("2.3.3", "1.4.3"),
    "2.4": ("2.4.0", "1.5.2"),
    "2.5": ("2.5.6", "1.7.4"),
    "newest": ("2.6.6", "1.9.0"),
}
# A pair has its own; Lightning 2.1 needs an older packaging.
OF_A_PAIR = ("lightning", "packaging", "pytorch-lightning", "torchmetrics")
# torchmetrics up to 1.3 and Lightning 2.1 import pkg_resources.
PKG_RESOURCES = "setuptools<81"
# The first torch that is supported was built for the first NumPy; with CUDA it is gigabytes.
OLDEST_TORCH = ("torch==2.1.2", "numpy<2")
# What shows on real trainers and several processes that names, hooks and numbers are as expected.
TESTS = (
    "tests/distributed/test_upstream_faults.py",
    "tests/distributed/test_equality.py::test_all_ranks_have_the_number_of_one_process[split-float32-2]",
    "tests/distributed/test_equality.py::test_all_ranks_have_the_number_of_one_process[empty-rank-float32-2]",
    "tests/distributed/test_matrix.py::test_the_test_stage",
    "tests/distributed/test_unknown_metrics.py",
    "tests/launch/test_launchers.py::test_correct_ends_with_the_reference[script]",
    "tests/launch/test_launchers.py::test_strict_ends_the_job_with_the_error_of_every_rank[script]",
    "tests/lifecycle/test_observation.py",
    "tests/lifecycle/test_packages.py",
    "tests/lifecycle/test_report.py",
    "tests/lifecycle/test_versions.py",
    "tests/unit/test_measures.py",
    "tests/unit/test_score.py",
)
# Each gets what pip finds newest, as a user's installation does: with CUDA that is several gigabytes.
PYTHONS = ("3.10", "3.11", "3.12", "3.13")
# Old releases cause warnings of Python and torch; only those of the guard are errors.
WARNINGS = ("-W", "default", "-W", "error::lightning_retrieval_guard.GuardWarning")

nox.options.sessions = ["compat"]


@nox.session(venv_backend="venv")
@nox.parametrize("pair", [nox.param(pair, id=pair) for pair in PAIRS])
def compat(session: nox.Session, pair: str) -> None:
    """Run the tests with one pair of versions, and keep the result for the page."""
    lightning, torchmetrics = PAIRS[pair]
    constraints = Path(session.create_tmp()) / "constraints.txt"
    torch = OLDEST_TORCH if pair == "oldest-torch" else ()
    replaced = (*OF_A_PAIR, *("torch", "numpy")[: len(torch)])
    tools = [line for line in Path("constraints-dev.txt").read_text().splitlines() if not line.startswith(replaced)]
    pinned = [*torch, f"lightning=={lightning}", f"pytorch-lightning=={lightning}", f"torchmetrics=={torchmetrics}"]
    constraints.write_text("\n".join([*tools, *pinned, PKG_RESOURCES]))
    session.install("-q", "-c", str(constraints), "torch", "setuptools")
    session.install("-q", "-c", str(constraints), "-e", ".[compat]")
    _test(session, pair)


@nox.session(venv_backend="venv", python=PYTHONS)
def unpinned(session: nox.Session) -> None:
    """Run the tests with the newest versions that pip finds for one Python, and keep the result for the page."""
    session.install("-q", "-e", ".[compat]")
    _test(session, session.name)


def _test(session: nox.Session, name: str) -> None:
    result = Path(session.create_tmp()) / "result.xml"
    tests = session.posargs or TESTS
    session.run("python", "-m", "pytest", "-q", *WARNINGS, f"--junitxml={result}", *tests)
    if tests is TESTS:
        session.run("python", "-m", "tests.compatibility", "note", str(result), name)


@nox.session(venv_backend="none")
def page(session: nox.Session) -> None:
    """Write docs/compatibility.md from the results of all pairs and Pythons."""
    names = [*PAIRS, *(f"unpinned-{python}" for python in PYTHONS)]
    session.run("python", "-m", "tests.compatibility", "page", *names)
