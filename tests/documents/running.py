"""Running what pages show; `python -m tests.documents.running PAGE` prints what the commands of a page print."""

from __future__ import annotations

import contextlib
import io
import os
import re
import shlex
import subprocess
import sys
import textwrap
import warnings
from pathlib import Path

import yaml

from lightning_retrieval_guard import RetrievalGuard
from lightning_retrieval_guard.cli import main as guard_command

from . import surroundings
from .pages import ROOT, Block, blocks

COMMAND = "lightning-retrieval-guard"
# What needs a registry, a cluster or another checkout. Its form is looked at, not its effect.
BY_FORM = re.compile(r"^(pip install|make|git|pre-commit|nox|cd) ")
PROGRAMS = [*(ROOT / "examples").glob("*.py"), *(ROOT / "tests" / "programs").glob("*/*.py")]
EXAMPLES = "\n".join(path.read_text(encoding="utf-8") for path in sorted(PROGRAMS))
LIMIT = 150  # seconds for one command


class Page:
    """Runs the blocks of one page, one after the other, in a folder that has its files and the examples.

    Attributes:
        path: The page.
        folder: Where it runs; the current directory must be the same.
    """

    def __init__(self, path: Path, folder: Path) -> None:
        self.path = path
        self.folder = folder
        self.names = surroundings.namespace()
        (folder / "examples").symlink_to(ROOT / "examples")

    def run(self, block: Block) -> None:
        """Run a block, or raise AssertionError where it does not do what it shows."""
        getattr(self, f"run_{way_of(block)}")(block)

    def run_file(self, block: Block) -> None:
        """A file, which commands of the page run."""
        file = self.folder / str(block.file_name)
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(block.text, encoding="utf-8")

    def run_program(self, block: Block) -> None:
        """What stands in a file of the examples or of the corpus; their tests run it."""

    def run_python(self, block: Block) -> None:
        """A piece of a program."""
        unseen = io.StringIO()
        with contextlib.redirect_stdout(unseen), contextlib.redirect_stderr(unseen), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            surroundings.run("\n" * (block.line - 1) + block.text, block.page, self.names)

    def run_yaml(self, block: Block) -> None:
        """A configuration: arguments of the guard in it are accepted by it."""
        for arguments in _guards_in(yaml.safe_load(block.text)):
            RetrievalGuard(**arguments)

    def run_console(self, block: Block) -> None:
        """Commands after `$`, each with what it prints below; a line `...` stands for what is left out."""
        for command, shown in commands(block.text):
            printed = self.execute(command)[1]
            at = 0
            for part in shown.split("\n...\n"):
                wanted = squeezed(part.removesuffix("\n...").removeprefix("...\n"))
                found = squeezed(printed).find(wanted, at)
                assert found >= 0, f"{block}: {command} does not print\n{part}\nbut\n{printed}"
                at = found + len(wanted)

    def run_shell(self, block: Block) -> None:
        """Commands that end well."""
        for command in commands_of(block):
            code, printed = self.execute(command)
            assert code == 0, f"{block}: {command}\n{printed}"

    def execute(self, command: str) -> tuple[int, str]:
        """The exit code of a command, and what it prints."""
        if BY_FORM.match(command):
            return _check_form(command), ""
        words = shlex.split(command)
        if words[0] == COMMAND and not set(words) & {"|", ">", "demo"}:
            return _in_this_process(words[1:])
        environment = {**os.environ, "PYTHONPATH": f"{ROOT}{os.pathsep}{self.folder}", "COLUMNS": "100"}
        environment["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), environment["PATH"]])
        done = subprocess.run(
            ["sh", "-c", command],
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=LIMIT,
            check=False,
        )
        return done.returncode, done.stdout.replace(f"{self.folder}/", "").replace(f"{ROOT}/", "")


def _in_this_process(words: list[str]) -> tuple[int, str]:
    # Importing torch in a process of its own would take longer than most commands.
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed), contextlib.redirect_stderr(printed):
        try:
            code = guard_command(words)
        except SystemExit as end:
            code = int(end.code or 0)
    return code, printed.getvalue()


def _check_form(command: str) -> int:
    program, *words = shlex.split(command)
    if program == "make":
        targets = re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
        assert words[0] in targets, command
    if program == "pip":
        assert any(word.startswith(("lightning-retrieval-guard", ".", "-e", "dist")) for word in words), command
    return 0


def way_of(block: Block) -> str:
    """How a block is run: the part of the name of a method of `Page`."""
    if block.file_name:
        return "file"
    indented = (textwrap.indent(block.text, indentation) for indentation in ("", "    "))
    return "program" if block.language == "python" and any(text in EXAMPLES for text in indented) else block.language


def commands_of(block: Block) -> list[str]:
    """The commands of a console or shell block."""
    if block.language == "console":
        return [command for command, _ in commands(block.text)]
    lines = [line.partition("  #")[0].strip() for line in block.text.splitlines() if block.language == "shell"]
    return [line for line in lines if line and not line.startswith("#")]


def commands(text: str) -> list[tuple[str, str]]:
    """The commands of a console block, each with what is shown below it."""
    _, *parts = re.split(r"^\$ ", text, flags=re.MULTILINE)
    pairs = [part.partition("\n") for part in parts]
    return [(command, shown.strip("\n")) for command, _, shown in pairs]


def squeezed(text: str) -> str:
    """The text with every stretch of white space as one blank: where lines break depends on a folder's length."""
    return " ".join(text.split())


def _guards_in(node: object) -> list[dict[str, object]]:
    if isinstance(node, dict):
        if str(node.get("class_path", "")).endswith("RetrievalGuard"):
            return [dict(node.get("init_args") or {})]
        if str(node.get("_target_", "")).endswith("RetrievalGuard"):
            return [{name: value for name, value in node.items() if name != "_target_"}]
        node = list(node.values())
    return [found for part in node for found in _guards_in(part)] if isinstance(node, list) else []


def main() -> None:
    """Print what the console commands of a page print."""
    import tempfile

    path = Path(sys.argv[1]).resolve()
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        page = Page(path, Path(folder))
        for block in blocks(path):
            if block.file_name:
                page.run(block)
            for command, _ in commands(block.text) if block.language == "console" else ():
                print(f"$ {command}\n{page.execute(command)[1]}")


if __name__ == "__main__":
    main()
