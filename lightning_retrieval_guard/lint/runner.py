"""The command ``lint``: reads files, shows what was found, and changes what has one safe form."""

from __future__ import annotations

import ast
import difflib
import io
import json
import os
import platform
import re
import sys
import tokenize
from argparse import Namespace
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from operator import attrgetter
from pathlib import Path

from lightning_retrieval_guard.findings import Severity
from lightning_retrieval_guard.lint.files import files_of, ignored_codes, read_configuration
from lightning_retrieval_guard.lint.finding import STATIC, LintFinding, fix_of
from lightning_retrieval_guard.lint.plugin import findings
from lightning_retrieval_guard.lint.source import lines_of
from lightning_retrieval_guard.report.annotations import Annotation, RuleEntry, as_github, as_sarif
from lightning_retrieval_guard.report.text import several

_STDIN = "-"
_CODES = r"(?::\s?(?P<codes>[A-Z]+\d*(?:[,\s]+[A-Z]+\d*)*))?"
_NOQA = re.compile(rf"#\s*noqa{_CODES}", re.IGNORECASE)
_NOQA_FILE = re.compile(rf"\s*#\s*flake8[:=]\s*noqa{_CODES}\s*$", re.IGNORECASE)
# Lines of a notebook that are no Python. Cells under the magics that are named hold Python all the same.
_MAGIC = re.compile(r"^(\s*)(%(?!%)|%%(time|timeit|capture|prun)\b|[!?]).*")
_ASSIGNED_MAGIC = re.compile(r"^(\s*[\w., ]+=\s*)[%!].*")
# An edit may make another one possible; none makes many.
_MOST_PASSES = 4
_POSITION = attrgetter("path", "cell", "line", "column", "code")


@dataclass(frozen=True)
class Record(Annotation):
    """One line of the result: a finding, or with a code of flake8 a file that cannot be read."""

    cell: int = 0  # of a notebook, from 1; 0 in other files. Lines are those of the cell
    is_fixable: bool = False

    @property
    def is_finding(self) -> bool:
        """Whether it is one of a rule, and not a file that cannot be read."""
        return self.code in STATIC


def run_lint(options: Namespace) -> int:
    """Lint files and folders, and print what was found.

    Args:
        options: What ``lightning-retrieval-guard lint`` was asked for, as the command line parses it.

    Returns:
        The exit code: 0 where nothing was found, 1 where something was, 2 where the lint could not run. A file that
        cannot be read is shown and does not count; neither do notes, unless they are asked to.
    """
    if refusal := _refusal(options):
        print(f"error: {refusal}", file=sys.stderr)
        return 2
    try:
        code = _run(options)
        sys.stdout.flush()
    except BrokenPipeError:
        # whoever read the output has seen enough; what Python flushes at its end must go nowhere
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    return code


def _refusal(options: Namespace) -> str:
    """Why the lint cannot run; empty where it can."""
    missing = [path for path in options.paths if path != _STDIN and not os.path.lexists(path)]
    if missing:
        return f"no such file or folder: {', '.join(map(repr, missing))}"
    for prefix in (*options.select, *options.ignore):
        if not any(code.startswith(prefix) for code in STATIC):
            return f"{prefix!r} is not a code or the start of one; the codes are {', '.join(STATIC)}."
    if (options.fix or options.diff) and find_spec("libcst") is None:
        return '--fix needs libcst. Run pip install libcst, or "lightning-retrieval-guard[lint]".'
    return ""


def _run(options: Namespace) -> int:
    configuration = read_configuration(Path.cwd())
    results = [
        _lint_file(path, options, (*options.ignore, *ignored_codes(path, configuration)))
        for path in files_of(options.paths, configuration)
    ]
    records = sorted((record for file_records, _ in results for record in file_records), key=_POSITION)
    if options.diff:
        unread = [record for record in records if not record.is_finding]
        print(_as_text(unread), end="\n" if unread else "", file=sys.stderr)
        return int((bool(unread) or any(changed for _, changed in results)) and not options.exit_zero)
    text = FORMATS[options.format](records)
    # what --fix makes of standard input has standard output to itself
    gives_source = options.fix and _STDIN in options.paths
    print(text, end="\n" if text else "", file=sys.stderr if gives_source else sys.stdout)
    if options.format == "text" and not options.quiet and records:
        print(_summary(records), file=sys.stderr)
    levels = [record.level for record in records if record.is_finding]
    fails = any(options.strict_notes or level is not Severity.NOTE for level in levels)
    return int(fails and not options.exit_zero)


def _summary(records: Sequence[Record]) -> str:
    count = sum(record.is_finding for record in records)
    fixable = sum(record.is_fixable for record in records)
    texts = [several(count, "finding")]
    texts += [f"{fixable} fixable with --fix"] if fixable else []
    texts += [f"{len(records) - count} not read"] if count < len(records) else []
    return f"{', '.join(texts)}."


# --- one file -------------------------------------------------------------------------------------------------------


def _lint_file(path: str, options: Namespace, ignore: tuple[str, ...]) -> tuple[list[Record], bool]:
    """What was found in a file, and whether it was changed or would be."""
    name = options.stdin_filename if path == _STDIN else path
    source = b""
    try:
        source = sys.stdin.buffer.read() if path == _STDIN else Path(path).read_bytes()
        before, records, after = _lint_source(source, name, options, ignore)
    except (OSError, SyntaxError, ValueError, RecursionError) as error:
        before = records = [_unread(name, error)]
        after = source
    if options.diff:
        _show_change(name, source, after)
    elif path == _STDIN and options.fix:
        sys.stdout.flush()
        sys.stdout.buffer.write(after)
    elif after != source:
        try:
            Path(path).write_bytes(after)
        except OSError as error:
            print(f"error: {path!r} cannot be written: {error.strerror}", file=sys.stderr)
            return before, False
    return records, after != source


def _lint_source(
    source: bytes, name: str, options: Namespace, ignore: tuple[str, ...]
) -> tuple[list[Record], list[Record], bytes]:
    """What was found in a file, what is found in it after its change, and the changed file."""
    if name.endswith(".ipynb"):
        text, positions = read_notebook(source.decode("utf-8-sig"))
        found = _lint(text, name, options.select, ignore)
        records = [_record(name, finding, *positions[finding.line - 1]) for finding in found]
        return records, records, source
    found = _lint(_decoded(source), name, options.select, ignore)
    before = records = [_record(name, finding) for finding in found]
    for _ in range(_MOST_PASSES if options.fix or options.diff else 0):
        edits = [finding.edit for finding in found if finding.edit is not None]
        if not edits:
            break
        from lightning_retrieval_guard.lint.fixing import apply_edits  # it needs libcst, which may be absent

        source = apply_edits(source, edits)
        found = _lint(_decoded(source), name, options.select, ignore)
        records = [_record(name, finding) for finding in found]
    return before, records, source


def _lint(text: str, name: str, select: tuple[str, ...], ignore: tuple[str, ...]) -> list[LintFinding]:
    lines = lines_of(text)
    file_codes = [codes for line in lines for codes in _codes(_NOQA_FILE.match(line))]
    result = []
    for finding in findings(ast.parse(text), lines, name):
        ignored = (*ignore, *file_codes, *_codes(_NOQA.search(lines[finding.line - 1])))
        if finding.rule.code.startswith(select or "") and not finding.rule.code.startswith(ignored):
            result.append(finding)
    return result


def _codes(noqa: re.Match[str] | None) -> list[str]:
    """The codes and prefixes of a comment; without one it means all, which the empty one is the start of."""
    return re.split(r"[,\s]+", (noqa["codes"] or "").upper()) if noqa else []


def _decoded(source: bytes) -> str:
    encoding, _ = tokenize.detect_encoding(io.BytesIO(source).readline)
    return source.decode(encoding)


def _show_change(name: str, before: bytes, after: bytes) -> None:
    if after != before:
        old, new = map(lines_of, map(_decoded, (before, after)))
        lines = difflib.unified_diff(old, new, name, name)
        no_end = "\n\\ No newline at end of file\n"  # as diff marks a last line without its end
        print("".join(line if line.endswith(("\n", "\r")) else line + no_end for line in lines), end="")


def _record(name: str, finding: LintFinding, cell: int = 0, line: int = 0) -> Record:
    rule = finding.rule
    is_fixable = finding.edit is not None and not cell  # notebooks are read, and never written
    position = (line or finding.line, finding.column + 1)
    return Record(rule.code, rule.slug, rule.severity, finding.message, name, *position, cell, is_fixable)


def _unread(name: str, error: Exception) -> Record:
    """A file that this Python cannot read; it may be of a newer one."""
    # the codes are those of flake8
    code, line, column, text = "E902", 1, 1, f"{type(error).__name__}: {error}"
    if isinstance(error, SyntaxError) and error.lineno is not None:
        code, line, column = "E999", max(error.lineno, 1), max(error.offset or 1, 1)
        text = f"SyntaxError: {error.msg} (read by Python {platform.python_version()})"
    return Record(code, "not-read", Severity.ERROR, text, name, line, column)


# --- formats --------------------------------------------------------------------------------------------------------


def _as_text(records: Sequence[Record]) -> str:
    """A line each, as flake8 writes them."""
    return "\n".join(
        f"{record.path}{f':cell {record.cell}' if record.cell else ''}:{record.line}:{record.column}:"
        f" {record.code} {record.slug}: {record.message}"
        for record in records
    )


def _as_json(records: Sequence[Record]) -> str:
    """One object with the findings and the files that could not be read."""
    findings, unread = [], []
    for record in records:
        names = ("path", *(["cell"] if record.cell else []), "line", "column", "message")
        entry = {name: getattr(record, name) for name in names}
        if record.is_finding:
            findings.append({"code": record.code, "rule": record.slug, "severity": record.level, **entry})
        else:
            unread.append(entry)
    return json.dumps({"version": 1, "findings": findings, "unread": unread}, indent=2)


def _as_sarif(records: Sequence[Record]) -> str:
    rules = {
        code: RuleEntry(spec.slug, f"{fix_of(spec)} See `lightning-retrieval-guard explain {code}`.", spec.severity)
        for code, spec in STATIC.items()
    }
    unread = [record for record in records if not record.is_finding]
    return as_sarif([record for record in records if record.is_finding], rules, unread)


FORMATS: dict[str, Callable[[Sequence[Record]], str]] = {
    "text": _as_text,
    "json": _as_json,
    "sarif": _as_sarif,
    "github": as_github,
}


# --- notebooks ------------------------------------------------------------------------------------------------------


def read_notebook(text: str) -> tuple[str, list[tuple[int, int]]]:
    """The code cells of a notebook, one after the other.

    Returns:
        The source, and for each of its lines the cell and the line in it, both from 1. Cells that are no Python, as
        those with magics of other languages, are empty.

    Raises:
        ValueError: If the file is no notebook.
    """
    try:
        cells = enumerate(json.loads(text)["cells"], 1)
        sources = [(number, "".join(cell["source"])) for number, cell in cells if cell["cell_type"] == "code"]
    except (KeyError, TypeError, json.JSONDecodeError) as error:
        raise ValueError("this is not a notebook") from error
    lines: list[str] = []
    positions: list[tuple[int, int]] = []
    for number, source in sources:
        code = [line.rstrip("\r\n") for line in lines_of(source)]
        if not _is_python("\n".join(code)):  # lines keep their number, so that findings have the right one
            code = [_ASSIGNED_MAGIC.sub(r"\1None", _MAGIC.sub(r"\1pass", line)) for line in code]
        lines += code if _is_python("\n".join(code)) else [""] * len(code)
        positions += [(number, line) for line in range(1, len(code) + 1)]
    return "\n".join(lines) + "\n", positions


def _is_python(source: str) -> bool:
    try:
        ast.parse(source)
    except (SyntaxError, ValueError):
        return False
    return True
