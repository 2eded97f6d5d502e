"""Pairs of a sentence and a function, read from the Python standard library."""

import ast
import re
import sysconfig
import tokenize
import warnings
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

# Tests and whole programs: much code, few sentences that describe it.
_SKIPPED = {"site-packages", "dist-packages", "test", "tests", "idlelib", "lib2to3", "turtledemo", "__pycache__"}
MIN_SENTENCE_WORDS = 2

_Function = ast.FunctionDef | ast.AsyncFunctionDef
_WORD = re.compile(r"[A-Z]?[a-z]+|[A-Z]+|\d+")
_END_OF_SENTENCE = re.compile(r"(?<=[.!?])\s|\n\s*\n")
_INSTALL = (
    "Install the source of the standard library (Debian and Ubuntu: apt-get install libpython3-stdlib; "
    "Fedora: dnf install python3-libs; other systems: a full Python from python.org), or run the demo with "
    "another Python."
)


class CorpusError(RuntimeError):
    """The standard library's source is missing or too small; the message says what to install."""


@dataclass(frozen=True)
class Pair:
    """A function's documentation and its code."""

    sentence: str  # the first one of the docstring, on one line
    code: str  # the source of the function without its docstring


@dataclass(frozen=True)
class Corpus:
    """What was read from a source tree."""

    pairs: tuple[Pair, ...]  # in the order of the sorted file names; no two have the same words on either side
    unparsed: int  # files and functions that were skipped because they do not parse


def read_corpus(root: Path | None = None, min_pairs: int = 1) -> Corpus:
    """Reads every documented function below a directory.

    Args:
        root: Where to look; by default the standard library of this Python.
        min_pairs: How many pairs the caller needs.

    Raises:
        CorpusError: There is no source under `root`, or it has fewer than `min_pairs` pairs.
    """
    root = Path(sysconfig.get_path("stdlib")) if root is None else root
    files = [file for file in sorted(root.rglob("*.py")) if _SKIPPED.isdisjoint(file.relative_to(root).parts[:-1])]
    if not files:
        raise CorpusError(f"There are no .py files under {root}. {_INSTALL}")
    read = [entry for file in files for entry in _read_file(file)]
    pairs = _without_repeats(pair for pair in read if pair is not None)
    if len(pairs) < min_pairs:
        raise CorpusError(
            f"The .py files under {root} have {len(pairs)} documented functions, {min_pairs} are needed. {_INSTALL}"
        )
    return Corpus(pairs, read.count(None))


def words(text: str) -> list[str]:
    """Splits text or code into lower-case words: `readHTTP_line2` gives read, http, line, 2."""
    return [word.lower() for word in _WORD.findall(text)]


def _read_file(path: Path) -> list[Pair | None]:
    """The pairs of a file; `None` in place of each part that does not parse."""
    try:
        with warnings.catch_warnings(), tokenize.open(path) as file:
            # An odd escape in a library file is nothing the reader of the demo can act on.
            warnings.simplefilter("ignore")
            tree = ast.parse(file.read(), str(path))
    except (SyntaxError, ValueError, RecursionError, OSError):
        return [None]
    return [pair for node in ast.walk(tree) if isinstance(node, _Function) for pair in _read_function(node)]


def _read_function(node: _Function) -> list[Pair | None]:
    docstring = (ast.get_docstring(node) or "").strip()
    sentence = " ".join(_END_OF_SENTENCE.split(docstring, maxsplit=1)[0].split())
    if len(words(sentence)) < MIN_SENTENCE_WORDS or len(node.body) < 2:
        return []
    node.body = node.body[1:]
    try:
        return [Pair(sentence, ast.unparse(node))]
    except (ValueError, RecursionError):
        return [None]


def _without_repeats(pairs: Iterable[Pair]) -> tuple[Pair, ...]:
    # Equal words in any order give equal embeddings, and then chance would decide the rank.
    seen: set[tuple[str, ...]] = set()
    distinct = []
    for pair in pairs:
        sides = {("sentence", *sorted(words(pair.sentence))), ("code", *sorted(words(pair.code)))}
        if seen.isdisjoint(sides):
            seen |= sides
            distinct.append(pair)
    return tuple(distinct)
