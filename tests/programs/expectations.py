"""The programs of the corpus, and the findings that their own text says are right.

1. A comment `# expect: LRG203@2 note:LRG207@2` names the findings at its line; `@2` is a world size, without it the
   finding is right on every number of devices.
2. A comment `# lint: LRG301` names what is certain at its line from the source alone, by the rules that the lint has;
   `missed:` before it says that the lint does not find it.
3. The docstring's last lines are fields, such as `Kind: metric object in the step`.
4. A file of the same name that ends in `.diff` holds the repair of a wrong program: lines with a blank, `-` or `+` in
   front, and `@@` between places that are apart. What stands there must be in the program exactly once.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

WORLDS = (1, 2)

_FOLDER = Path(__file__).parent
_COMMENT = re.compile(r"# expect: ([^#]+)")
_LINT = re.compile(r"# lint: ([^#]+)")
_ITEM = re.compile(r"(?P<missed>missed:)?(?P<note>note:)?(?P<code>LRG\d{3})(?:@(?P<world>\d))?")
_FIELD = re.compile(r"^(Kind|Right form|Stays|Fails|Known miss|Known false|No rule|Own|Pool): (.+)$", re.MULTILINE)


@dataclass(frozen=True, order=True)
class Place:
    """A finding as the corpus compares it: which rule, at which line of the program."""

    code: str
    line: int


@dataclass(frozen=True)
class Expectation:
    """One item of a comment.

    Attributes:
        world: the world size, or `None` for every one.
        note: whether the finding changes no number.
        missed: whether the lint is known not to find it.
    """

    place: Place
    world: int | None
    note: bool
    missed: bool = False


@dataclass(frozen=True)
class Program:
    """One file of the corpus.

    Attributes:
        name: its module in the package, such as "wrong.shard_of_forward".
    """

    name: str
    path: Path

    @cached_property
    def text(self) -> str:
        return self.path.read_text(encoding="utf-8")

    @cached_property
    def repair(self) -> str:
        """How it is put right, from the file beside it; empty where there is none."""
        path = self.path.with_suffix(".diff")
        return path.read_text(encoding="utf-8") if path.is_file() else ""

    @property
    def repaired(self) -> str:
        """Its text with the repair."""
        return _changed(self.text, self.repair)

    @cached_property
    def summary(self) -> str:
        """What the program does, from its docstring."""
        return _docstring(self.text).partition("\n\n")[0].replace("\n", " ")

    @cached_property
    def fields(self) -> dict[str, str]:
        """What the docstring says besides.

        - Kind: how it logs, or what is wrong.
        - Right form: the program whose numbers it ought to log.
        - Stays: why correct mode leaves its numbers alone.
        - Fails: the world size on which it aborts without a guard.
        - Known miss, Known false: a code that the guard is known not to find, or to find wrongly, and why.
        - No rule: why no finding is expected of a wrong program.
        - Own: keys that are meant to be each rank's own.
        - Pool: why devices score other candidates, so that numbers cannot be compared.
        """
        return dict(_FIELD.findall(_docstring(self.text)))

    @property
    def is_right(self) -> bool:
        return self.name.startswith("right.")

    @property
    def right_form(self) -> str:
        """The program whose numbers on one device are the reference; itself by default."""
        return f"right.{self.fields['Right form']}" if "Right form" in self.fields else self.name

    def fails(self, world_size: int) -> bool:
        """Whether it aborts without a guard."""
        return self.fields.get("Fails") == str(world_size)

    @cached_property
    def expectations(self) -> tuple[Expectation, ...]:
        return tuple(_expectations(self.text, _COMMENT))

    @cached_property
    def static_expectations(self) -> tuple[Expectation, ...]:
        """The findings that are certain from the source alone."""
        return tuple(_expectations(self.text, _LINT))

    def expected_by_lint(self, note: bool | None = None, missed: bool = True) -> frozenset[Place]:
        """The static findings that are right: those above note, the notes, or both; with what is missed or without."""
        chosen = (
            expectation
            for expectation in self.static_expectations
            if note in (None, expectation.note) and (missed or not expectation.missed)
        )
        return frozenset(expectation.place for expectation in chosen)

    def expected(self, world_size: int, note: bool = False) -> frozenset[Place]:
        """The findings that are right: those above note, or the notes."""
        return frozenset(
            expectation.place
            for expectation in self.expectations
            if expectation.note == note and expectation.world in (None, world_size)
        )

    @property
    def known_false(self) -> str:
        """The code that the guard is known to find wrongly, and why."""
        return self.fields.get("Known false", "")

    def known_misses(self, world_size: int) -> frozenset[Place]:
        """The findings that are right and that the guard is known not to make."""
        codes = self.fields.get("Known miss", "")
        return frozenset(place for place in self.expected(world_size) if place.code in codes)


def _docstring(text: str) -> str:
    return ast.get_docstring(ast.parse(text)) or ""


def _changed(text: str, changes: str) -> str:
    for change in changes.split("@@\n"):
        lines = change.splitlines(keepends=True)
        old, new = ("".join(line[1:] for line in lines if line[0] != other) for other in "+-")
        if text.count(old) != 1:
            raise ValueError(f"{text.count(old)} times in the program, not once:\n{old}")
        text = text.replace(old, new)
    return text


def _expectations(text: str, comment: re.Pattern[str]) -> Iterator[Expectation]:
    for number, line in enumerate(text.splitlines(), start=1):
        found = comment.search(line)
        for item in found[1].split() if found else ():
            parts = _ITEM.fullmatch(item)
            if parts is None:
                raise ValueError(f"line {number}: {item!r} is no expectation, such as LRG203@2 or note:LRG207")
            world = parts["world"]
            note, missed = parts["note"] is not None, parts["missed"] is not None
            yield Expectation(Place(parts["code"], number), int(world) if world else None, note, missed)


def read_programs(folder: Path = _FOLDER) -> dict[str, Program]:
    """Every program of the corpus by its name."""
    paths = sorted(path for kind in ("right", "wrong") for path in (folder / kind).glob("[!_]*.py"))
    return {name: Program(name, path) for path in paths for name in [f"{path.parent.name}.{path.stem}"]}
