"""The command: its options, what it leaves out, and files that cannot be read."""

from __future__ import annotations

import importlib.util
import io
import json
import os
import platform
import subprocess
import sys
from pathlib import Path

import pytest

from lightning_retrieval_guard.cli import main
from lightning_retrieval_guard.lint import runner

WRONG = """\
from lightning.pytorch import LightningModule


class Model(LightningModule):
    def validation_step(self, batch, batch_idx):
        self.log("loss", 1.0, sync_dist=True, rank_zero_only=True)
"""
FINDING = (
    "6:9: LRG204 rank-zero-sync: sync_dist=True and rank_zero_only=True: Lightning reduces nothing, and the logger"
    " shows the shard of rank 0. Drop rank_zero_only."
)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "wrong.py").write_text(WRONG)
    return tmp_path


def lint(*arguments: str, capsys: pytest.CaptureFixture[str]) -> tuple[int, list[str]]:
    code = main(["lint", *arguments])
    return code, capsys.readouterr().out.splitlines()


def test_a_finding_is_a_line_and_1(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert lint("wrong.py", capsys=capsys) == (1, [f"wrong.py:{FINDING}"])
    assert lint(".", capsys=capsys) == (1, [f"./wrong.py:{FINDING}"])


def test_nothing_found_is_nothing_said_and_0(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "wrong.py").write_text(WRONG.replace("sync_dist=True, ", "") + "import os, sys\n")
    assert lint(".", capsys=capsys) == (0, [])


@pytest.mark.parametrize("comment", ["# noqa", "# noqa: LRG204", "# lrg: ignore", "# lrg: ignore[LRG1, LRG20]"])
def test_comments_keep_a_line_quiet(folder: Path, comment: str, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "wrong.py").write_text(WRONG.rstrip("\n") + f"  {comment}\n")
    assert lint("wrong.py", capsys=capsys) == (0, [])


@pytest.mark.parametrize("comment", ["# noqa: LRG101", "# lrg: ignore[LRG101]", "# lrg ignore"])
def test_other_comments_do_not(folder: Path, comment: str, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "wrong.py").write_text(WRONG.rstrip("\n") + f"  {comment}\n")
    assert lint("wrong.py", capsys=capsys)[0] == 1


def test_columns_are_characters(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "wrong.py").write_text(WRONG.replace("self.log", "ä = 'ö'; self.log"), encoding="utf-8")
    assert lint("wrong.py", capsys=capsys) == (1, [f"wrong.py:{FINDING.replace('6:9', '6:18')}"])


def test_a_comment_counts_on_any_line_of_the_call(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    call = WRONG.replace("rank_zero_only=True)", "rank_zero_only=True,\n        )  # lrg: ignore[LRG204]")
    (folder / "wrong.py").write_text(call)
    assert lint("wrong.py", capsys=capsys) == (0, [])


@pytest.mark.parametrize("before", ["\f", "NAME = '\u2028\x85'"], ids=["form feed", "marks in a string"])
def test_a_comment_counts_at_its_own_line_whatever_stands_before(
    folder: Path, before: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "wrong.py").write_text(f"{before}\n{WRONG.rstrip()}  # noqa: LRG204\n", encoding="utf-8")
    assert lint("wrong.py", capsys=capsys) == (0, [])


@pytest.mark.parametrize(
    "settings", ["exclude = wrong.py", "extend-ignore = LRG204", "per-file-ignores = wrong.py:LRG"]
)
def test_the_configuration_of_flake8_holds(folder: Path, settings: str, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / ".flake8").write_text(f"[flake8]\n{settings}\n")
    assert lint(".", capsys=capsys) == (0, [])
    (folder / ".flake8").write_text(f"[flake8]\n{settings}\n".replace("wrong", "other").replace("LRG204", "LRG101"))
    assert lint(".", capsys=capsys)[0] == 1


def test_plain_flake8_shows_the_same(folder: Path) -> None:
    done = subprocess.run([sys.executable, "-m", "flake8", "wrong.py"], capture_output=True, text=True, check=False)
    assert done.stdout.splitlines() == [f"wrong.py:{FINDING}"]


# --- files that are not as they ought to be ---------------------------------------------------------------------


def test_a_file_that_cannot_be_read_is_a_line_and_does_not_count(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "a.py").write_text("def f(:\n")
    (folder / "latin.py").write_bytes(b"# coding: latin-1\nimport torchmetrics\nname = '\xe9'\n")
    (folder / "mislabelled.py").write_bytes(b"import torchmetrics\nname = '\xe9'\n")
    (folder / "mark.py").write_bytes(b"\xef\xbb\xbf" + WRONG.encode())
    (folder / "empty.py").touch()
    (folder / "loop.py").symlink_to("loop.py")
    (folder / "again").symlink_to(".")
    (folder / "stub.pyi").write_text("from torchmetrics import Metric\nmetric: Metric\n")
    (folder / "cells.ipynb").write_text("{}")
    code, lines = lint(".", "stub.pyi", "cells.ipynb", capsys=capsys)
    assert code == 1
    unread = {line.partition(":")[0]: line for line in lines if "not-read" in line}
    assert set(unread) == {"./a.py", "./loop.py", "./mislabelled.py", "./cells.ipynb", "cells.ipynb"}
    assert unread["./a.py"].startswith("./a.py:1:7: E999 not-read: SyntaxError")
    assert f"(read by Python {platform.python_version()})" in unread["./a.py"]
    assert unread["./loop.py"].startswith("./loop.py:1:1: E902 not-read: OSError")
    assert unread["cells.ipynb"] == "cells.ipynb:1:1: E902 not-read: ValueError: this is not a notebook"
    assert [line for line in lines if "not-read" not in line] == [f"./mark.py:{FINDING}", f"./wrong.py:{FINDING}"]
    assert lint("a.py", "loop.py", capsys=capsys)[0] == 0


def test_a_file_of_50_000_lines(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "wrong.py").write_text(f"import torchmetrics\n{WRONG}" + "# a line\n" * 50_000)
    assert lint("wrong.py", capsys=capsys) == (1, [f"wrong.py:{FINDING.replace('6:9', '7:9')}"])


def notebook(*sources: str) -> str:
    cells = [{"cell_type": "code", "source": source.splitlines(keepends=True)} for source in sources]
    return json.dumps({"cells": [{"cell_type": "markdown", "source": ["# Title"]}, *cells]})


def test_a_notebook_names_the_cell(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    head, body = WRONG.split("\n\n\n")
    (folder / "cells.ipynb").write_text(notebook("%matplotlib inline\n!ls", "%%bash\necho 1", head, f"%time\n{body}"))
    code, [line] = lint("cells.ipynb", capsys=capsys)
    assert (code, line) == (1, f"cells.ipynb:cell 5:4:9: {FINDING.partition(': ')[2]}")
    code, lines = lint("cells.ipynb", "--format=json", capsys=capsys)
    [found] = json.loads("\n".join(lines))["findings"]
    assert (found["path"], found["cell"], found["line"]) == ("cells.ipynb", 5, 4)


def test_a_line_of_a_cell_is_counted_as_python_counts_it(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "cells.ipynb").write_text(json.dumps({"cells": [{"cell_type": "code", "source": f"\f\n{WRONG}"}]}))
    assert lint("cells.ipynb", capsys=capsys) == (1, [f"cells.ipynb:cell 1:7:9: {FINDING.partition(': ')[2]}"])


def test_a_notebook_with_a_byte_order_mark(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "cells.ipynb").write_text(notebook(WRONG), encoding="utf-8-sig")
    assert lint("cells.ipynb", capsys=capsys)[0] == 1


@pytest.mark.parametrize(
    "magic", ["%%time", "%%capture out", "files = !ls", "number = %time 1 + 1", "text = ('%s'\n    % 1)"]
)
def test_a_magic_does_not_hide_the_python_around_it(
    folder: Path, magic: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "cells.ipynb").write_text(notebook(f"{magic}\n{WRONG}"))
    assert lint("cells.ipynb", capsys=capsys) == (
        1,
        [f"cells.ipynb:cell 2:{7 + magic.count(chr(10))}:9: {FINDING.partition(': ')[2]}"],
    )


def test_a_right_notebook_is_silent(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "cells.ipynb").write_text(notebook(WRONG.replace(", rank_zero_only=True", "")))
    assert lint("cells.ipynb", capsys=capsys) == (0, [])


def test_a_path_that_begins_with_a_dash(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "-wrong.py").write_text(WRONG)
    assert lint("--", "-wrong.py", capsys=capsys) == (1, [f"-wrong.py:{FINDING}"])


# --- options ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "code", "count"),
    [
        ([], 1, 1),
        (["--select=LRG2"], 1, 1),
        (["--select=LRG3,LRG101"], 0, 0),
        (["--ignore=LRG204"], 0, 0),
        (["--ignore=lrg3"], 1, 1),
        (["--exit-zero"], 0, 1),
    ],
)
def test_codes_and_the_exit_code(
    folder: Path, options: list[str], code: int, count: int, capsys: pytest.CaptureFixture[str]
) -> None:
    found = lint("wrong.py", *options, capsys=capsys)
    assert (found[0], len(found[1])) == (code, count)


def test_a_code_that_there_is_not_is_2(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["lint", "--select=LRG7"]) == 2
    assert "'LRG7' is not a code" in capsys.readouterr().err


def test_a_note_counts_where_it_is_asked_to(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    note = WRONG.replace('self.log("loss", 1.0, sync_dist=True, rank_zero_only=True)', "RetrievalMRR().compute()")
    (folder / "wrong.py").write_text(f"from torchmetrics.retrieval import RetrievalMRR\n{note}")
    code, [line] = lint("wrong.py", capsys=capsys)
    assert (code, "LRG207" in line) == (0, True)
    assert lint("wrong.py", "--strict-notes", capsys=capsys)[0] == 1


def test_the_last_line_counts_unless_it_is_to_be_quiet(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(["lint", "wrong.py"])
    assert capsys.readouterr().err == "1 finding, 1 fixable with --fix.\n"
    main(["lint", "wrong.py", "--quiet"])
    assert capsys.readouterr().err == ""


def test_standard_input_has_the_name_it_is_given(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for options, name in (([], "<stdin>"), (["--stdin-filename=src/a.py"], "src/a.py")):
        monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(WRONG.encode())))
        assert lint("-", *options, capsys=capsys) == (1, [f"{name}:{FINDING}"])


def test_a_pipe_that_closes_ends_it_quietly(folder: Path) -> None:
    for number in range(400):
        (folder / f"m{number}.py").write_text(WRONG)
    command = f"{sys.executable} -m lightning_retrieval_guard lint . | head -1"
    done = subprocess.run(["sh", "-c", command], capture_output=True, text=True, check=False)
    assert (len(done.stdout.splitlines()), "Traceback" in done.stderr, "Broken" in done.stderr) == (1, False, False)


@pytest.mark.parametrize("name", ["ünï.py", os.fsdecode(b"\xe9.py")], ids=["other letters", "not UTF-8"])
@pytest.mark.parametrize("form", ["text", "github", "json", "sarif"])
def test_a_name_that_the_terminal_cannot_show_ends_nothing(folder: Path, name: str, form: str) -> None:
    (folder / "wrong.py").rename(folder / name)
    command = [sys.executable, "-m", "lightning_retrieval_guard", "lint", "--format", form, "."]
    done = subprocess.run(command, env={**os.environ, "PYTHONIOENCODING": "ascii"}, capture_output=True, check=False)
    assert (done.returncode, b"LRG204" in done.stdout, b"Traceback" in done.stderr) == (1, True, False)


# --- what is left out -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [".venv/a.py", "build/a.py", "src/__pycache__/a.py", "own/lib/a.py"])
def test_environments_and_build_folders_are_left_out(
    folder: Path, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    path = folder / name
    path.parent.mkdir(parents=True)
    (folder / "wrong.py").rename(path)
    (path.parents[len(Path(name).parts) - 2] / "pyvenv.cfg").touch()
    assert lint(capsys=capsys) == (0, [])
    assert lint(name, capsys=capsys) == (1, [f"{name}:{FINDING}"])


def test_what_git_ignores_is_left_out(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    subprocess.run(["git", "init", "-q", "."], check=True)
    (folder / "made").mkdir()
    (folder / "made" / "wrong.py").write_text(WRONG)
    (folder / ".gitignore").write_text("made/\n")
    assert lint(capsys=capsys) == (1, [f"./wrong.py:{FINDING}"])
    assert lint("made", capsys=capsys) == (1, [f"made/wrong.py:{FINDING}"])


def test_in_a_repository_too_environments_are_left_out_and_inner_repositories_are_not(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("added", "submodule", "own"):
        (folder / name).mkdir()
        (folder / name / "wrong.py").write_text(WRONG)
    (folder / "own" / "pyvenv.cfg").touch()
    git = ("git", "-c", "user.name=a", "-c", "user.email=a@example.org")
    for name in ("added", "submodule", "."):
        subprocess.run([*git, "-C", name, "init", "-q"], check=True)
    subprocess.run([*git, "-C", "submodule", "add", "."], check=True)
    subprocess.run([*git, "-C", "submodule", "commit", "-qm", "a"], check=True)
    subprocess.run([*git, "add", "submodule"], check=True, capture_output=True)
    paths = ["./added/wrong.py", "./submodule/wrong.py", "./wrong.py"]
    assert lint(capsys=capsys) == (1, [f"{path}:{FINDING}" for path in paths])


def test_a_name_in_another_encoding_is_found_where_git_lists_it(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    subprocess.run(["git", "init", "-q", "."], check=True)
    (folder / "wrong.py").rename(folder / os.fsdecode(b"\xe9.py"))
    assert lint(capsys=capsys)[0] == 1


# --- what cannot run --------------------------------------------------------------------------------------------


def test_no_such_path_is_2(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["lint", "wrong.py", "gone.py"]) == 2
    assert capsys.readouterr() == ("", "error: no such file or folder: 'gone.py'\n")


@pytest.mark.parametrize("option", ["--fix", "--diff"])
def test_without_libcst_it_says_what_to_install(
    folder: Path, option: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(runner, "find_spec", lambda name: None if name == "libcst" else importlib.util.find_spec(name))
    assert main(["lint", "wrong.py", option]) == 2
    assert "pip install libcst" in capsys.readouterr().err


def test_the_form_is_checked(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        main(["lint", "wrong.py", "--format=xml"])
    assert "invalid choice" in capsys.readouterr().err


def test_findings_of_two_processes_are_in_order(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for number in range(4):
        (folder / f"m{number}.py").write_text(WRONG)
    main(["lint", ".", "--format=json"])
    paths = [finding["path"] for finding in json.loads(capsys.readouterr().out)["findings"]]
    assert paths == ["./m0.py", "./m1.py", "./m2.py", "./m3.py", "./wrong.py"]
