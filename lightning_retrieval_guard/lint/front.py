"""The command ``lint``: runs flake8 with the codes of this package only, and shows the result in one of four forms."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from importlib.metadata import entry_points
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory

from lightning_retrieval_guard.lint.formats import FORMATS, Record
from lightning_retrieval_guard.watch.comments import EVERY_RULE

# What flake8 says of a file that it cannot read, or that is no Python.
_UNREAD = "E9"
_RECORD, _FIELD = "\x1e", "\x1f"
_FIELDS = ("%(path)s", "%(row)d", "%(col)d", "%(code)s", "%(text)s")
_NOTEBOOK = ".ipynb"


class CannotRunError(Exception):
    """The lint could not run; the text says why."""


def run_lint(paths: Sequence[str], form: str) -> int:
    """Lint files and folders, and print what was found.

    Args:
        paths: What to look at; in a folder that is every file of Python, as flake8 has it.
        form: One of ``FORMATS``.

    Returns:
        The exit code: 0 where nothing was found, 1 where something was or a file could not be read, 2 where flake8
        could not run.
    """
    try:
        records = _records(paths)
    except CannotRunError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    text = FORMATS[form](records)
    print(text, end="\n" if text else "")
    return 1 if records else 0


def _records(paths: Sequence[str]) -> list[Record]:
    missing = [path for path in paths if not Path(path).exists() and not Path(path).is_symlink()]
    if missing:
        raise CannotRunError(f"no such file or folder: {', '.join(map(repr, missing))}")
    if find_spec("flake8") is None:
        raise CannotRunError('flake8 is not installed. Run pip install "lightning-retrieval-guard[lint]".')
    if not any(point.name == EVERY_RULE for point in entry_points(group="flake8.extension")):
        raise CannotRunError("flake8 does not know the plugin. Install lightning-retrieval-guard again.")
    notebooks = [path for path in paths if Path(path).suffix == _NOTEBOOK and not Path(path).is_dir()]
    others = [path for path in paths if path not in notebooks]
    unread = [Record(path, 1, 1, f"{_UNREAD}02", "a notebook is no Python source") for path in notebooks]
    return sorted([*unread, *(_run_flake8(others) if others else [])])


def _run_flake8(paths: Sequence[str]) -> list[Record]:
    with TemporaryDirectory() as folder:
        output = Path(folder) / "records"
        form = _RECORD + _FIELD.join([*_FIELDS, ""])
        options = [f"--select={EVERY_RULE},{_UNREAD}", f"--format={form}", f"--output-file={output}"]
        # flake8 takes what begins with a dash for an option, also after "--"
        plain = [f"./{path}" if path.startswith("-") else path for path in paths]
        command = [sys.executable, "-X", "utf8", "-m", "flake8", *options, "--no-show-source", *plain]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        text = output.read_text(encoding="utf-8") if output.exists() else ""
    if done.returncode not in (0, 1) or (done.returncode == 1 and _RECORD not in text):
        raise CannotRunError(f"flake8 failed:\n{done.stdout}{done.stderr}".rstrip())
    records = [_parsed(own) for own in text.split(_RECORD)[1:]]
    # the user's configuration may select other codes as well
    return [own for own in records if own.code.startswith((EVERY_RULE, _UNREAD))]


def _parsed(text: str) -> Record:
    # statistics and lines of source may follow, where the user's configuration asks for them
    path, line, column, code, message, _ = text.split(_FIELD)
    # a file that cannot be opened is reported at line 0
    return Record(path, max(int(line), 1), max(int(column), 1), code, message)
