"""The examples: right programs log the same on one and two processes; wrong ones are found and corrected."""

from __future__ import annotations

import ast
import re
import runpy
import textwrap
import warnings
from collections.abc import Callable, Iterator
from contextlib import closing
from functools import cache
from pathlib import Path

import nbclient
import nbformat
import pytest
from lightning.pytorch import Trainer

from lightning_retrieval_guard.findings import Severity
from lightning_retrieval_guard.parity.check import Processes, check
from lightning_retrieval_guard.parity.compare import Parity
from lightning_retrieval_guard.parity.options import build_options

from .surroundings import ONE_CPU

FOLDER = Path(__file__).parents[2] / "examples"
SHOWN = FOLDER / "two_devices.py"  # in README.md
# What is found in the wrong form, and on how many processes.
FOUND = {
    "contrastive": {"LRG201": {2}},
    "dense_retriever": {"LRG301": {1, 2}},
    "recommender": {"LRG203": {2}},
    "reranker": {"LRG203": {2}},
}
each_example = pytest.mark.parametrize("name", FOUND)


Run = Callable[[str, str, str], Parity]


@pytest.fixture(scope="module")
def run() -> Iterator[Run]:
    """Checks a form of an example in a mode, once, on one and two processes that all examples share."""
    with closing(Processes()) as processes:

        @cache
        def check_once(name: str, form: str, mode: str) -> Parity:
            target = f"{FOLDER / name}.py:{form}"
            return check(build_options(target, world_sizes=(1, 2), timeout=60, mode=mode), processes)

        yield check_once


def found(parity: Parity) -> dict[str, set[int]]:
    """The codes above note, and on how many processes they were found."""
    codes: dict[str, set[int]] = {}
    for one in parity.runs:
        assert not one.problem
        for finding in one.findings:
            if finding.severity is not Severity.NOTE:
                codes.setdefault(finding.code, set()).add(one.world_size)
    return codes


def test_every_example_is_run() -> None:
    assert {path.stem for path in FOLDER.glob("*.py")} == FOUND.keys() | {SHOWN.stem}


def test_the_readme_shows_the_program_and_the_number_of_one_device() -> None:
    """The numbers of two devices are in its console block, which test_pages.py runs."""
    readme, program = (path.read_text(encoding="utf-8") for path in (FOLDER.parent / "README.md", SHOWN))
    [step] = [block for block in re.findall(r"```python\n(.*?)```", readme, re.DOTALL) if "def " in block]
    assert textwrap.indent(step, "    ") in program
    parts = runpy.run_path(str(SHOWN))
    [shown] = Trainer(**ONE_CPU).validate(parts["Clip"](), parts["pairs"](48), verbose=False)
    assert shown == pytest.approx({"val_recall@1": 0.2917, "val_recall@5": 0.6562}, abs=1e-4)
    assert "Recall@1 = 0.29 on one device" in readme


@each_example
def test_the_right_form_logs_the_same_and_nothing_is_found(name: str, run: Run) -> None:
    parity = run(name, "right", "warn")
    assert (found(parity), parity.different) == ({}, ())
    assert parity.keys


@each_example
def test_the_wrong_form_is_found(name: str, run: Run) -> None:
    parity = run(name, "wrong", "warn")
    assert found(parity) == FOUND[name]
    assert parity.different


@each_example
def test_the_guard_corrects_the_wrong_form(name: str, run: Run) -> None:
    right = {key.name: key.numbers[1] for key in run(name, "right", "warn").keys}
    for key in run(name, "wrong", "correct").keys:
        assert key.numbers == pytest.approx(dict.fromkeys((1, 2), right[key.name]), abs=1e-6)


@each_example
def test_the_docstring_names_what_is_found(name: str) -> None:
    text = (FOLDER / f"{name}.py").read_text(encoding="utf-8").split('"""')[1]
    assert all(code in text for code in FOUND[name])


@pytest.mark.nightly  # a kernel of its own, which forks
@pytest.mark.timeout(200)
def test_the_notebook_shows_what_it_computes(monkeypatch: pytest.MonkeyPatch) -> None:
    notebook = nbformat.read(FOLDER / "tutorial.ipynb", as_version=4)
    shown = results_of(notebook)
    monkeypatch.setenv("PYTHONPATH", str(FOLDER.parent))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")  # a forked process must not meet the thread pool of its parent
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the kernel's own libraries
        nbclient.NotebookClient(notebook, timeout=120, kernel_name="python3").execute()
    assert results_of(notebook) == shown
    assert [codes for _, codes in map(ast.literal_eval, shown)] == [["LRG301"], [], []]


def results_of(notebook: nbformat.NotebookNode) -> list[str]:
    outputs = [output for cell in notebook.cells if cell.cell_type == "code" for output in cell.outputs]
    return [output["data"]["text/plain"] for output in outputs if output.output_type == "execute_result"]
