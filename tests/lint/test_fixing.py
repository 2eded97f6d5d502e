"""``--fix`` and ``--diff``: what has one safe form is changed, and nothing else in the file."""

from __future__ import annotations

import ast
import io
from collections import ChainMap
from collections.abc import Iterator
from pathlib import Path

import pytest

from lightning_retrieval_guard.cli import main
from lightning_retrieval_guard.lint.finding import LintFinding
from lightning_retrieval_guard.lint.fixing import apply_edits
from lightning_retrieval_guard.lint.plugin import findings
from tests.distributed.harness import Pool
from tests.programs.evaluate import TARGET
from tests.programs.expectations import WORLDS, Program, read_programs

from .snippets import in_step

GATHER = "s = self.all_gather(batch)\n"
# what the step holds, and what it is to hold
FIXED = {
    "LRG101 in place": (
        'self.log("l", batch.mean(), batch_size=len(batch) * self.trainer.world_size)',
        'self.log("l", batch.mean(), batch_size=float(len(batch)))',
    ),
    "LRG101 by a name": (
        'n = self.trainer.world_size * batch.shape[0]\nself.log("l", batch.mean(), batch_size=n)',
        'n = self.trainer.world_size * batch.shape[0]\nself.log("l", batch.mean(), batch_size=float(batch.shape[0]))',
    ),
    "LRG202": (
        'self.log("r", self.recall.compute(), sync_dist=True, reduce_fx="sum", prog_bar=True)',
        'self.log("r", self.recall.compute(), prog_bar=True)',
    ),
    "LRG203": (
        'self.log(\n    "r",\n    self.recall(*batch),  # of the batch\n)',
        'self.log(\n    "r",\n    self.recall(*batch),  # of the batch\n    sync_dist=True,\n)',
    ),
    "LRG203 behind a comment without a comma": (
        'self.log(\n    "r",\n    self.recall(*batch)  # of the batch\n)',
        'self.log(\n    "r",\n    self.recall(*batch),  # of the batch\n    sync_dist=True\n)',
    ),
    "LRG203 spelled out": (
        'self.log("r", self.recall(*batch), sync_dist=False)',
        'self.log("r", self.recall(*batch), sync_dist=True)',
    ),
    "LRG204": (
        'self.log("ä", 1.0, rank_zero_only=True, sync_dist=True)  # why',
        'self.log("ä", 1.0, sync_dist=True)  # why',
    ),
    "LRG204 at the end": (
        'self.log(\n    "l",\n    1.0,\n    sync_dist=True,\n    rank_zero_only=True,\n)',
        'self.log(\n    "l",\n    1.0,\n    sync_dist=True,\n)',
    ),
    "LRG204 behind a comment": (
        'self.log(\n    "l",\n    1.0,\n    sync_dist=True,  # all\n    rank_zero_only=True,\n)',
        'self.log(\n    "l",\n    1.0,\n    sync_dist=True,  # all\n    )',
    ),
    "LRG201": (
        GATHER + "m = RetrievalMAP()\nm.update(s, s, indexes=s)",
        GATHER + "m = RetrievalMAP(sync_on_compute=False)\nm.update(s, s, indexes=s)",
    ),
}
# found, and left alone
LEFT = {
    "a nominal size": 'self.log("l", batch.mean(), batch_size=8 * self.trainer.world_size)',
    "a name that changes": (
        'n = 1\nn = len(batch)\nself.log("l", batch.mean(), batch_size=n * self.trainer.world_size)'
    ),
    "a mean of batches": 'self.log("r", self.recall(*batch), batch_size=1)',
    "a comment on the argument": 'self.log(\n    "l", 1.0, sync_dist=True, rank_zero_only=True,  # on purpose\n)',
    "a comment above the argument": (
        'self.log(\n    "l",\n    1.0,\n    sync_dist=True,\n    # on purpose\n    rank_zero_only=True,\n)'
    ),
    "perhaps the same argument": (
        'options = {"sync_dist": False, "on_epoch": True}\nself.log("r", self.recall(*batch), **options)'
    ),
    "the same argument by position": (
        'self.log("r", self.recall(*batch), False, True, False, True, "mean", False, False)'
    ),
    "a value that rank zero alone logs": (
        'value = self.recall(*batch)\nif self.global_rank == 0:\n    self.log("r", value)'
    ),
    "a metric that gets other rows too": (
        GATHER + "m = RetrievalMAP()\nm.update(s, s, indexes=s)\nm.clone().update(batch, batch, indexes=batch)"
    ),
    "a value of the end": 'self.log("r", self.local.compute())',
    "compute on rank zero": "if self.trainer.is_global_zero:\n    self.recall.compute()",
    "a collection": GATHER + "self.all.update(s, s, indexes=s)",
}


def fixed(path: Path, source: str, *options: str) -> str:
    path.write_text(source, encoding="utf-8")
    main(["lint", str(path), *options])
    return path.read_text(encoding="utf-8")


@pytest.mark.parametrize("case", FIXED)
def test_it_is_fixed_and_found_no_more(case: str, tmp_path: Path) -> None:
    before, after = map(in_step, FIXED[case])
    code = case.partition(" ")[0]
    assert code in codes(before)
    assert fixed(tmp_path / "a.py", before, "--fix") == after
    assert code not in codes(after)


def codes(source: str) -> list[str]:
    return [finding.rule.code for finding in findings(ast.parse(source), source.splitlines(keepends=True))]


@pytest.mark.parametrize("case", LEFT)
def test_without_one_safe_form_it_stays(case: str, tmp_path: Path) -> None:
    source = in_step(
        LEFT[case], head="on_validation_epoch_end(self)" if "end" in case else "validation_step(self, batch, batch_idx)"
    )
    if "end" in case:
        source += "\n    def validation_step(self, batch, batch_idx):\n        self.local.update(*batch)\n"
    assert codes(source)
    assert fixed(tmp_path / "a.py", source, "--fix") == source


def test_what_is_kept_quiet_or_not_selected_stays(tmp_path: Path) -> None:
    quiet = in_step(FIXED["LRG204"][0].replace("# why", "# noqa: LRG204"))
    assert fixed(tmp_path / "a.py", quiet, "--fix") == quiet
    source = in_step(FIXED["LRG204"][0])
    assert fixed(tmp_path / "a.py", source, "--fix", "--select=LRG1") == source


def test_line_ends_and_the_encoding_stay(tmp_path: Path) -> None:
    path = tmp_path / "a.py"
    before, after = (f"# coding: latin-1\n{in_step(text)}".replace("\n", "\r\n") for text in FIXED["LRG204"])
    path.write_bytes(before.encode("latin-1"))
    assert main(["lint", str(path), "--fix"]) == 0
    assert path.read_bytes() == after.encode("latin-1")


@pytest.mark.parametrize("head", ["\f", "MARK = '\u2028'"], ids=["form feed", "mark in a string"])
def test_it_is_fixed_whatever_stands_before(head: str, tmp_path: Path) -> None:
    before, after = (f"{head}\n{in_step(text)}" for text in FIXED["LRG204"])
    assert fixed(tmp_path / "a.py", before, "--fix") == after


def test_diff_shows_it_and_changes_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = in_step(FIXED["LRG204"][0])
    path = tmp_path / "a.py"
    assert fixed(path, source, "--diff") == source
    shown = [line for line in capsys.readouterr().out.splitlines() if line[:1] in "+-"][2:]
    assert shown == [
        '-        self.log("ä", 1.0, rank_zero_only=True, sync_dist=True)  # why',
        '+        self.log("ä", 1.0, sync_dist=True)  # why',
    ]
    assert main(["lint", str(path), "--diff"]) == 1
    assert main(["lint", str(path), "--diff", "--select=LRG1"]) == 0


def test_what_was_fixed_is_no_longer_reported(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "a.py"
    path.write_text(in_step("\n".join((FIXED["LRG204"][0], LEFT["a mean of batches"]))), encoding="utf-8")
    assert main(["lint", str(path), "--fix"]) == 1
    assert [line.split()[1] for line in capsys.readouterr().out.splitlines()] == ["LRG203", "LRG302"]


def test_diff_marks_a_last_line_without_its_end(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    fixed(tmp_path / "a.py", in_step(FIXED["LRG204"][0]).rstrip(), "--diff")
    assert capsys.readouterr().out.count("# why\n\\ No newline at end of file\n") == 2


def test_diff_names_what_it_cannot_read(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "a.py").write_text("def (:\n", encoding="utf-8")
    assert main(["lint", str(tmp_path / "a.py"), "--diff"]) == 1
    shown = capsys.readouterr()
    assert (shown.out, " E999 " in shown.err) == ("", True)


def test_what_cannot_be_written_or_followed_is_still_reported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    deep = in_step(FIXED["LRG204"][0]) + f"\n\nTOTAL = 1{' + 1' * 900}\n"
    (tmp_path / "a.py").write_text(deep, encoding="utf-8")
    assert main(["lint", str(tmp_path / "a.py"), "--fix"]) == 1
    assert " LRG204 " in capsys.readouterr().out
    (tmp_path / "a.py").write_text(in_step(FIXED["LRG204"][0]), encoding="utf-8")

    def refuse(*_: object) -> int:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "write_bytes", refuse)
    assert main(["lint", str(tmp_path / "a.py"), "--fix", "--quiet"]) == 1
    out, err = capsys.readouterr()
    assert " LRG204 " in out
    assert err == f"error: {str(tmp_path / 'a.py')!r} cannot be written: Permission denied\n"


# --- standard input ---------------------------------------------------------------------------------------------


def fix_standard_input(source: bytes, monkeypatch: pytest.MonkeyPatch, *options: str) -> int:
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(source)))
    return main(["lint", "--fix", "-", *options])


def test_standard_output_is_the_fixed_source_and_nothing_else(
    monkeypatch: pytest.MonkeyPatch, capsysbinary: pytest.CaptureFixture[bytes]
) -> None:
    texts = (f"# coding: latin-1\n{in_step(text)}".replace("\n", "\r\n") for text in FIXED["LRG204"])
    before, after = (text.encode("latin-1") for text in texts)
    assert fix_standard_input(before, monkeypatch) == 0
    assert capsysbinary.readouterr() == (after, b"")
    left = in_step(LEFT["a mean of batches"]).encode()
    assert fix_standard_input(left, monkeypatch, "--format=json") == 1
    out, err = capsysbinary.readouterr()
    assert (out, b'"LRG302"' in err) == (left, True)


@pytest.mark.parametrize("options", [[], ["--stdin-filename=a.ipynb"]])
def test_what_cannot_be_read_comes_back_as_it_was(
    options: list[str], monkeypatch: pytest.MonkeyPatch, capsysbinary: pytest.CaptureFixture[bytes]
) -> None:
    assert fix_standard_input(b"def f(:\n", monkeypatch, *options) == 0
    out, err = capsysbinary.readouterr()
    assert (out, b"not-read" in err) == (b"def f(:\n", True)


# --- the corpus -------------------------------------------------------------------------------------------------


def fixable() -> list[Program]:
    return [
        program
        for program in read_programs().values()
        if any(found.edit for found in found_in(program)) and "Pool" not in program.fields
    ]


def found_in(program: Program) -> list[LintFinding]:
    return findings(ast.parse(program.text), program.text.splitlines(keepends=True), str(program.path))


@pytest.fixture(scope="module")
def pools() -> Iterator[dict[int, Pool]]:
    pools = {world_size: Pool(world_size) for world_size in WORLDS}
    yield pools
    for pool in pools.values():
        pool.close()


@pytest.mark.parametrize("program", fixable(), ids=lambda program: program.name)
def test_a_fixed_program_logs_on_two_devices_what_it_logs_on_one(program: Program, pools: dict[int, Pool]) -> None:
    edits = [finding.edit for finding in found_in(program) if finding.edit is not None]
    text = apply_edits(program.text.encode(), edits).decode()
    assert text != program.text
    logged = {}
    for world_size, pool in pools.items():
        outcomes = pool.run(TARGET, case=program.name, program=program.name, text=text)
        assert all(outcome.ok for outcome in outcomes), "\n".join(map(str, outcomes))
        logged[world_size] = [dict(ChainMap(*outcome.value["shown"])) for outcome in outcomes]
    [alone] = logged[1]
    assert alone
    for value in logged[2]:
        assert value == pytest.approx(alone, abs=1e-5)


def test_the_fixes_of_the_corpus_are_of_every_kind() -> None:
    codes = {found.rule.code for program in fixable() for found in found_in(program) if found.edit}
    assert codes == {"LRG101", "LRG201", "LRG202", "LRG203", "LRG204"}
