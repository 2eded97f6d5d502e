"""Pairs of a sentence and a function, read from the Python standard library."""

import ast
import re
import sysconfig
import tokenize
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

# Tests and whole programs: much code, few sentences that describe it.
_SKIPPED = frozenset(
    {"site-packages", "dist-packages", "test", "tests", "idlelib", "lib2to3", "turtledemo", "__pycache__"}
)
MIN_SENTENCE_WORDS = 2

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
    pairs: list[Pair] = []
    unparsed = 0
    for file in files:
        in_file, failed = _read_file(file)
        pairs += in_file
        unparsed += failed
    distinct = tuple(_without_repeats(pairs))
    if len(distinct) < min_pairs:
        raise CorpusError(
            f"The .py files under {root} have {len(distinct)} documented functions, {min_pairs} are needed. {_INSTALL}"
        )
    return Corpus(distinct, unparsed)


def words(text: str) -> list[str]:
    """Splits text or code into lower-case words: `readHTTP_line2` gives read, http, line, 2."""
    return [word.lower() for word in _WORD.findall(text)]


def _read_file(path: Path) -> tuple[list[Pair], int]:
    """The pairs of a file, and how much of it was skipped."""
    try:
        with warnings.catch_warnings(), tokenize.open(path) as file:
            # An odd escape in a library file is nothing the reader of the demo can act on.
            warnings.simplefilter("ignore")
            tree = ast.parse(file.read(), str(path))
    except (SyntaxError, ValueError, RecursionError, OSError):
        return [], 1
    pairs: list[Pair] = []
    failed = 0
    for node in ast.walk(tree):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            try:
                pairs += _pair(node)
            except (ValueError, RecursionError):
                failed += 1
    return pairs, failed


def _pair(node: ast.FunctionDef | ast.AsyncFunctionDef) -> list[Pair]:
    docstring = (ast.get_docstring(node) or "").strip()
    sentence = " ".join(_END_OF_SENTENCE.split(docstring, maxsplit=1)[0].split())
    if len(words(sentence)) < MIN_SENTENCE_WORDS or len(node.body) < 2:
        return []
    node.body = node.body[1:]
    return [Pair(sentence, ast.unparse(node))]


def _without_repeats(pairs: list[Pair]) -> Iterator[Pair]:
    # Equal words in any order give equal embeddings, and then chance would decide the rank.
    sentences: set[tuple[str, ...]] = set()
    codes: set[tuple[str, ...]] = set()
    for pair in pairs:
        sentence, code = tuple(sorted(words(pair.sentence))), tuple(sorted(words(pair.code)))
        if sentence not in sentences and code not in codes:
            sentences.add(sentence)
            codes.add(code)
            yield pair
