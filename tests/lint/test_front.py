"""The command: what flake8 is asked, what comes back, and files that cannot be read."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import pytest

from lightning_retrieval_guard.cli import main
from lightning_retrieval_guard.lint import front

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


def test_a_comment_counts_on_any_line_of_the_call(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    call = WRONG.replace("rank_zero_only=True)", "rank_zero_only=True,\n        )  # lrg: ignore[LRG204]")
    (folder / "wrong.py").write_text(call)
    assert lint("wrong.py", capsys=capsys) == (0, [])


@pytest.mark.parametrize(
    "settings", ["exclude = wrong.py", "extend-ignore = LRG204", "per-file-ignores = wrong.py:LRG"]
)
def test_the_configuration_of_flake8_holds(folder: Path, settings: str, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / ".flake8").write_text(f"[flake8]\n{settings}\n")
    assert lint(".", capsys=capsys) == (0, [])


@pytest.mark.parametrize("settings", ["count = True", "show-source = True", "statistics = True", "extend-select = W"])
def test_the_configuration_of_flake8_leaves_the_form_alone(
    folder: Path, settings: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / ".flake8").write_text(f"[flake8]\n{settings}\n")
    (folder / "other.py").write_text("x = 1 \n")
    assert lint(".", capsys=capsys) == (1, [f"./wrong.py:{FINDING}"])


def test_plain_flake8_shows_the_same(folder: Path) -> None:
    done = subprocess.run([sys.executable, "-m", "flake8", "wrong.py"], capture_output=True, text=True, check=False)
    assert done.stdout.splitlines() == [f"wrong.py:{FINDING}"]


# --- files that are not as they ought to be ---------------------------------------------------------------------


def test_a_file_that_cannot_be_read_is_a_line_and_the_next_follows(
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
    assert set(unread) == {"./a.py", "./loop.py", "cells.ipynb"}
    assert unread["./a.py"].startswith("./a.py:1:8: E999 not-read: SyntaxError")
    assert unread["./loop.py"].startswith("./loop.py:1:1: E902 not-read: OSError")
    assert unread["cells.ipynb"] == "cells.ipynb:1:1: E902 not-read: a notebook is no Python source"
    assert [line for line in lines if "not-read" not in line] == [f"./mark.py:{FINDING}", f"./wrong.py:{FINDING}"]


def test_a_file_of_50_000_lines(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "wrong.py").write_text(f"import torchmetrics\n{WRONG}" + "# a line\n" * 50_000)
    assert lint("wrong.py", capsys=capsys) == (1, [f"wrong.py:{FINDING.replace('6:9', '7:9')}"])


def test_only_a_notebook(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "cells.ipynb").write_text("{}")
    code, lines = lint("cells.ipynb", capsys=capsys)
    assert (code, len(lines)) == (1, 1)


def test_a_path_that_begins_with_a_dash(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "-wrong.py").write_text(WRONG)
    assert lint("--", "-wrong.py", capsys=capsys) == (1, [f"./-wrong.py:{FINDING}"])


# --- what cannot run --------------------------------------------------------------------------------------------


def test_no_such_path_is_2(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["lint", "wrong.py", "gone.py"]) == 2
    assert capsys.readouterr() == ("", "error: no such file or folder: 'gone.py'\n")


def test_without_flake8_it_says_what_to_install(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(front, "find_spec", lambda name: None if name == "flake8" else importlib.util.find_spec(name))
    assert main(["lint", "wrong.py"]) == 2
    assert 'pip install "lightning-retrieval-guard[lint]"' in capsys.readouterr().err


def test_where_flake8_does_not_know_the_plugin_it_says_so(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(front, "entry_points", lambda group: [])
    assert main(["lint", "wrong.py"]) == 2
    assert "does not know the plugin" in capsys.readouterr().err


def test_what_flake8_cannot_do_is_2(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / ".flake8").write_text("[flake8]\nmax-line-length = many\n")
    assert main(["lint", "wrong.py"]) == 2
    assert "flake8 failed" in capsys.readouterr().err


def test_the_form_is_checked(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        main(["lint", "wrong.py", "--format=xml"])
    assert "invalid choice" in capsys.readouterr().err


def test_findings_of_two_processes_are_in_order(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for number in range(4):
        (folder / f"m{number}.py").write_text(WRONG)
    main(["lint", ".", "--format=json"])
    paths = [own["path"] for own in json.loads(capsys.readouterr().out)["findings"]]
    assert paths == ["./m0.py", "./m1.py", "./m2.py", "./m3.py", "./wrong.py"]
