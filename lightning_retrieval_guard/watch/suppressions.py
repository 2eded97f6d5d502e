"""What the user keeps quiet: comments at log calls, and ``with guard.ignore(...)`` blocks."""

from __future__ import annotations

import ast
import io
import linecache
import re
import sys
import tokenize
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache

from lightning_retrieval_guard.settings import check_codes
from lightning_retrieval_guard.watch.call_site import (
    CallSite,
    call_lines,
    is_library,
    is_log_call,
    parse_source,
    user_call_site,
)

# every code starts with it
EVERY_RULE = "LRG"
_COMMENT = re.compile(r"#\s*lrg:\s*ignore(?:\s*\[(?P<codes>[^\]]*)\]?|(?![\w\[-]))")


@dataclass(frozen=True)
class Suppression:
    """One comment or block.

    Attributes:
        path: The user's file.
        line: The line of the comment, or of the block's first line, from 1.
        text: What the user wrote, or what a block is called.
        patterns: Rule codes or prefixes that stay silent.
        is_block: Whether it is a block.
    """

    path: str
    line: int
    text: str
    patterns: tuple[str, ...]
    is_block: bool = False


def comments_in(path: str, lines: Sequence[str]) -> list[Suppression]:
    """The comments that keep rules quiet, in order; none where the source is no Python.

    Args:
        path: The file.
        lines: Its source, with line ends.
    """
    text = "".join(lines)
    if not _COMMENT.search(text):
        return []
    try:
        tokens = list(tokenize.generate_tokens(io.StringIO(text).readline))
    except (SyntaxError, tokenize.TokenError):  # a notebook cell with magics, or a file that has changed
        return []
    comments = [token for token in tokens if token.type == tokenize.COMMENT]
    matches = [(token.start[0], match) for token in comments for match in [_COMMENT.search(token.string)] if match]
    return [Suppression(path, line, match[0], _patterns(match)) for line, match in matches]


def _patterns(match: re.Match[str]) -> tuple[str, ...]:
    """The codes and prefixes of a comment; brackets with nothing in them hold one that no code starts with."""
    if match["codes"] is None:
        return (EVERY_RULE,)
    return tuple(filter(None, map(str.strip, match["codes"].split(",")))) or ("[]",)


# rules about the guard itself, which no log call and no update shows
_ABOUT_THE_GUARD = "LRG9"


Suppressed = tuple[Suppression, ...]


def patterns_of(suppressed: Suppressed) -> tuple[str, ...]:
    """The codes and prefixes of several suppressions, each once and in order."""
    return tuple(sorted({pattern for suppression in suppressed for pattern in suppression.patterns}))


def all_silence(patterns_of_ranks: Sequence[Sequence[str]], code: str) -> bool:
    """Whether a rule is suppressed by what every rank reported: its suppressed codes and prefixes."""
    return bool(patterns_of_ranks) and all(code.startswith(tuple(patterns)) for patterns in patterns_of_ranks)


class Suppressions:
    """The suppressions of one guard: those at hand, and those that have silenced something.

    Args:
        codes: Those of all rules.
    """

    def __init__(self, codes: Iterable[str]) -> None:
        self._codes = sorted(codes)
        self._active: list[Suppression] = []
        self._entered: dict[Suppression, None] = {}
        self._sites: dict[CallSite, Suppressed] = {}
        self._used: set[tuple[Suppression, str]] = set()

    def block(self, codes: Sequence[str]) -> IgnoreBlock:
        """A context in which rules stay silent.

        Raises:
            ValueError: No code is given, or one that no rule about log calls or metrics starts with.
            TypeError: A code is not a string.
        """
        if not codes:
            raise ValueError(f"ignore() needs rule codes or prefixes, such as {self._codes[0]!r}; 'LRG' means all.")
        patterns = check_codes("ignore()", codes, self._codes)
        if any(pattern.startswith(_ABOUT_THE_GUARD) for pattern in patterns):
            raise ValueError(
                f"ignore() holds {', '.join(map(repr, patterns))}, but {_ABOUT_THE_GUARD}xx is about the guard itself."
                " Pass that to RetrievalGuard(ignore=[...])."
            )
        site = user_call_site()
        return IgnoreBlock(
            self, Suppression(site.path, site.line, f"ignore({', '.join(patterns)})", patterns, is_block=True)
        )

    def enter(self, block: Suppression) -> None:
        """A block begins."""
        self._active.append(block)
        self._entered[block] = None

    def leave(self, block: Suppression) -> None:
        """A block ends; the latest of the same, whatever has begun since."""
        # list.remove() takes the first of equals, and the latest is meant
        self._active.reverse()
        self._active.remove(block)
        self._active.reverse()

    def at(self, site: CallSite) -> Suppressed:
        """What holds for a log call or an update that happens now at a line of the user's."""
        # reading the source takes long, so each line is read once a run
        if site not in self._sites:
            self._sites[site] = tuple(_comments_at(site))
        return (*self._sites[site], *self._active)

    def still(self, suppressed: Suppressed) -> Suppressed:
        """What holds for a later log call of the same key too."""
        return tuple(
            suppression for suppression in suppressed if not suppression.is_block or suppression in self._active
        )

    def may_apply(self, owners: Iterable[type]) -> bool:
        """Whether a suppression is active, or stands in a file of some classes or of a log call or update so far."""
        modules = {owner.__module__ for owner in owners if not is_library(owner.__module__)}
        files = {getattr(sys.modules.get(module), "__file__", None) for module in modules}
        paths = {site.path for site in self._sites} | {path for path in files if path is not None}
        return bool(self._active) or any(_may_suppress(path) for path in paths)

    # --- what was of use --------------------------------------------------------------------------------------

    def use(self, suppressed: Suppressed, code: str) -> None:
        """A finding was silenced."""
        for suppression in suppressed:
            self._used.update((suppression, pattern) for pattern in suppression.patterns if code.startswith(pattern))

    def unused(self) -> Iterator[tuple[Suppression, list[str]]]:
        """The suppressions of this run, each with those of its codes and prefixes that have silenced nothing."""
        for suppression in (*self._entered, *self._comments()):
            idle = [pattern for pattern in suppression.patterns if (suppression, pattern) not in self._used]
            if idle:
                yield suppression, idle

    def _comments(self) -> Iterator[Suppression]:
        """The comments in files of this run's log calls, without those at calls that never ran."""
        at_calls = {suppression for suppressed in self._sites.values() for suppression in suppressed}
        for path in sorted({site.path for site in self._sites}):
            comments = _comments_in(path)
            if not comments:
                continue
            ran = {_function_around(path, site.line) for site in self._sites if site.path == path}
            for comment in comments:
                # a comment in a function that never ran may be of use in another run
                idle = not _stands_at_log_call(comment) and _function_around(path, comment.line) in {None, *ran}
                if comment in at_calls or idle:
                    yield comment

    def start_over(self) -> None:
        """A run is over. What was of use stays known."""
        # a block around several runs is one of each of them
        self._entered = dict.fromkeys(self._active)
        self._sites = {}


class IgnoreBlock:
    """Keeps rules silent while it is entered; may be entered again, also within itself."""

    def __init__(self, suppressions: Suppressions, suppression: Suppression) -> None:
        self._suppressions = suppressions
        self._suppression = suppression

    def __enter__(self) -> None:
        self._suppressions.enter(self._suppression)

    def __exit__(self, *_: object) -> None:
        self._suppressions.leave(self._suppression)


# --- comments in source -----------------------------------------------------------------------------------------


def _comments_at(site: CallSite) -> Iterator[Suppression]:
    comments = _comments_in(site.path)
    lines = call_lines(site) if comments else ()
    return (comment for comment in comments if comment.line in lines)


@lru_cache(maxsize=32)
def _may_suppress(path: str) -> bool:
    """Whether a file has comments that suppress, or may make blocks."""
    return bool(_comments_in(path)) or ".ignore(" in "".join(linecache.getlines(path))


@lru_cache(maxsize=32)
def _comments_in(path: str) -> tuple[Suppression, ...]:
    return tuple(comments_in(path, linecache.getlines(path)))


def _stands_at_log_call(comment: Suppression) -> bool:
    tree = parse_source(comment.path)
    calls = [] if tree is None else [node for node in ast.walk(tree) if isinstance(node, ast.Call)]
    return any(is_log_call(call) and comment.line in _lines(call) for call in calls)


def _function_around(path: str, line: int) -> int | None:
    """The first line of the innermost function around a line, or ``None`` outside of functions."""
    tree = parse_source(path)
    functions = [] if tree is None else [node for node in ast.walk(tree) if isinstance(node, _FUNCTIONS)]
    return max((function.lineno for function in functions if line in _lines(function)), default=None)


_FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)


def _lines(node: ast.expr | ast.stmt) -> range:
    return range(node.lineno, (node.end_lineno or node.lineno) + 1)
