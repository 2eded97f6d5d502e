"""The command ``lint``: reads files, shows what was found, and changes what has one safe form."""

from __future__ import annotations

import ast
import io
import os
import platform
import re
import sys
import tokenize
from collections.abc import Sequence
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path

from lightning_retrieval_guard.lint.configuration import read_configuration
from lightning_retrieval_guard.lint.discovery import files_of
from lightning_retrieval_guard.lint.finding import Found
from lightning_retrieval_guard.lint.formats import FORMATS, Record
from lightning_retrieval_guard.lint.notebooks import read_notebook
from lightning_retrieval_guard.lint.plugin import findings
from lightning_retrieval_guard.rules.static import STATIC

STDIN = "-"
_NOTEBOOK = ".ipynb"
_CODES = r"(?::\s?(?P<codes>[A-Z]+\d*(?:[,\s]+[A-Z]+\d*)*))?"
_NOQA = re.compile(rf"#\s*noqa{_CODES}", re.IGNORECASE)
_NOQA_FILE = re.compile(rf"\s*#\s*flake8[:=]\s*noqa{_CODES}\s*$", re.IGNORECASE)
_MOST_PASSES = 4


class CannotRunError(Exception):
    """The lint could not run; the text says why."""


@dataclass(frozen=True)
class LintOptions:
    """What the command was asked for.

    Attributes:
        paths: Files and folders; ``"-"`` is standard input.
        form: One of ``FORMATS``.
        select: Codes or prefixes that are reported; all by default.
        ignore: Codes or prefixes that are not.
        exit_zero: Whether findings leave the exit code at 0.
        quiet: Whether the last line, which counts, is left out.
        strict_notes: Whether notes count as findings.
        stdin_filename: The name of what comes from standard input.
        fix: Whether files are changed.
        diff: Whether the changes are shown and not made.
    """

    paths: Sequence[str] = (".",)
    form: str = "text"
    select: tuple[str, ...] = ()
    ignore: tuple[str, ...] = ()
    exit_zero: bool = False
    quiet: bool = False
    strict_notes: bool = False
    stdin_filename: str = "<stdin>"
    fix: bool = False
    diff: bool = False


def run_lint(options: LintOptions) -> int:
    """Lint files and folders, and print what was found.

    Returns:
        The exit code: 0 where nothing was found, 1 where something was, 2 where the lint could not run. A file that
        cannot be read is shown and does not count; neither do notes, unless they are asked to.
    """
    try:
        code = _run(options)
        sys.stdout.flush()
    except CannotRunError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except BrokenPipeError:
        # whoever read the output has seen enough; what Python flushes at its end must go nowhere
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    return code


def _run(options: LintOptions) -> int:
    _check(options)
    records: list[Record] = []
    changed = 0
    configuration = read_configuration(Path.cwd())
    for path in files_of(options.paths):
        if path not in options.paths and configuration.excludes(path):
            continue
        ignore = (*options.ignore, *configuration.ignored(path))
        own, diff = _lint_file(path, replace(options, ignore=ignore))
        records += own
        if diff:
            changed += 1
            print(diff, end="")
    counted = [own for own in records if own.is_finding and (options.strict_notes or own.severity != "note")]
    if options.diff:
        return 1 if changed and not options.exit_zero else 0
    text = FORMATS[options.form](sorted(records, key=lambda own: (own.path, own.cell, own.line, own.column, own.code)))
    print(text, end="\n" if text else "")
    if options.form == "text" and not options.quiet and records:
        print(_summary(records), file=sys.stderr)
    return 1 if counted and not options.exit_zero else 0


def _check(options: LintOptions) -> None:
    missing = [path for path in options.paths if path != STDIN and not os.path.lexists(path)]
    if missing:
        raise CannotRunError(f"no such file or folder: {', '.join(map(repr, missing))}")
    for own in (*options.select, *options.ignore):
        if not any(code.startswith(own) for code in STATIC):
            raise CannotRunError(f"{own!r} is not a code or the start of one; the codes are {', '.join(STATIC)}.")
    if (options.fix or options.diff) and find_spec("libcst") is None:
        raise CannotRunError('--fix needs libcst. Run pip install libcst, or "lightning-retrieval-guard[lint]".')


def _summary(records: Sequence[Record]) -> str:
    found = [own for own in records if own.is_finding]
    fixable = sum(own.is_fixable for own in found)
    parts = [f"{len(found)} finding{'s' if len(found) != 1 else ''}"]
    parts += [f"{fixable} fixable with --fix"] if fixable else []
    unread = len(records) - len(found)
    return ", ".join([*parts, *([f"{unread} not read"] if unread else [])]) + "."


# --- one file -------------------------------------------------------------------------------------------------------


def _lint_file(path: str, options: LintOptions) -> tuple[list[Record], str]:
    """What was found in a file, and the change that was made or is shown."""
    name = options.stdin_filename if path == STDIN else path
    try:
        source = sys.stdin.buffer.read() if path == STDIN else Path(path).read_bytes()
        if name.endswith(_NOTEBOOK):
            text, places = read_notebook(source.decode("utf-8"))
            return [_record(name, own, places) for own in _found(text, name, options)], ""
        found = _found(_decoded(source), name, options)
        if not (options.fix or options.diff):
            return [_record(name, own) for own in found], ""
        return _fix(path, name, source, found, options)
    except (OSError, SyntaxError, ValueError, RecursionError) as error:
        return [_unread(name, error)], ""


def _decoded(source: bytes) -> str:
    encoding, _ = tokenize.detect_encoding(io.BytesIO(source).readline)
    return source.decode(encoding)


def _found(text: str, name: str, options: LintOptions) -> list[Found]:
    lines = text.splitlines(keepends=True)
    found = findings(ast.parse(text), lines, name)
    chosen = (own for own in found if own.advice.code.startswith(options.select or "") and _is_heard(own, lines))
    return [own for own in chosen if not (options.ignore and own.advice.code.startswith(options.ignore))]


def _is_heard(found: Found, lines: Sequence[str]) -> bool:
    """Whether no ``noqa`` keeps a finding quiet."""
    matches = [_NOQA.search(lines[found.line - 1]), *(_NOQA_FILE.match(line) for line in lines)]
    for match in filter(None, matches):
        codes = re.split(r"[,\s]+", match["codes"].upper()) if match["codes"] else [""]
        if found.advice.code.startswith(tuple(codes)):
            return False
    return True


def _record(name: str, found: Found, places: Sequence[tuple[int, int]] = ()) -> Record:
    cell, line = places[found.line - 1] if places else (0, found.line)
    text = found.text.removeprefix(f"{found.advice.code} ")
    return Record(name, line, found.column + 1, found.advice.code, text, cell, found.edit is not None and not places)


def _fix(path: str, name: str, source: bytes, found: list[Found], options: LintOptions) -> tuple[list[Record], str]:
    """Changes a file until nothing is left that can be changed."""
    from lightning_retrieval_guard.lint.fixing import apply_edits, diff_of

    after = source
    for _ in range(_MOST_PASSES):
        edits = [own.edit for own in found if own.edit is not None]
        if not edits:
            break
        after = apply_edits(after, edits)
        found = _found(_decoded(after), name, options)
    if options.diff:
        return [_record(name, own) for own in found], diff_of(name, source, after)
    if path == STDIN:
        sys.stdout.write(_decoded(after))
    elif after != source:
        Path(path).write_bytes(after)
    return [_record(name, own) for own in found], ""


def _unread(name: str, error: Exception) -> Record:
    """A file that this Python cannot read; it may be of a newer one."""
    if isinstance(error, SyntaxError) and error.lineno is not None:
        text = f"SyntaxError: {error.msg} (read by Python {platform.python_version()})"
        return Record(name, max(error.lineno, 1), max(error.offset or 1, 1), "E999", text)
    return Record(name, 1, 1, "E902", f"{type(error).__name__}: {error}")
