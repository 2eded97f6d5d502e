"""What flake8's own configuration says, so that the command and the plugin leave out the same."""

from __future__ import annotations

import re
from collections.abc import Iterator
from configparser import ConfigParser, Error
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path

_FILES = ("setup.cfg", "tox.ini", ".flake8")


@dataclass(frozen=True)
class Configuration:
    """The part of flake8's configuration that is about files and codes.

    Attributes:
        exclude: Patterns of files and folders that are left out.
        ignore: Codes or prefixes that are not reported.
        per_file: Patterns of files, each with codes that are not reported in them.
    """

    exclude: tuple[str, ...] = ()
    ignore: tuple[str, ...] = ()
    per_file: tuple[tuple[str, str], ...] = ()

    def excludes(self, path: str) -> bool:
        """Whether a file that was found in a folder is left out."""
        return any(_fits(path, pattern) for pattern in self.exclude)

    def ignored(self, path: str) -> tuple[str, ...]:
        """The codes and prefixes that are not reported in a file."""
        return (*self.ignore, *(code for pattern, code in self.per_file if _fits(path, pattern)))


def read_configuration(folder: Path) -> Configuration:
    """The configuration of the folder that the command runs in, as flake8 finds it."""
    for name in _FILES:
        parser = ConfigParser(interpolation=None)
        try:
            parser.read(folder / name, encoding="utf-8")
        except (Error, UnicodeDecodeError):
            continue
        if parser.has_section("flake8"):
            options = {key.replace("_", "-"): value for key, value in parser["flake8"].items()}
            exclude = _parts(options.get("exclude", ""), options.get("extend-exclude", ""))
            ignore = _parts(options.get("ignore", ""), options.get("extend-ignore", ""))
            return Configuration(exclude, ignore, tuple(_pairs(options.get("per-file-ignores", ""))))
    return Configuration()


def _parts(*texts: str) -> tuple[str, ...]:
    lines = (line.partition("#")[0] for text in texts for line in text.splitlines())
    return tuple(part for line in lines for part in re.split(r"[,\s]+", line) if part)


def _pairs(text: str) -> Iterator[tuple[str, str]]:
    for match in re.finditer(r"([^\s:,][^:]*):\s*([A-Z]+\d*(?:[,\s]+[A-Z]+\d*\b(?!\s*:))*)", text):
        for pattern in _parts(match[1]):
            yield from ((pattern, code) for code in _parts(match[2]))


def _fits(path: str, pattern: str) -> bool:
    parts = Path(path).parts
    return fnmatch(Path(path).as_posix(), pattern.rstrip("/")) or any(
        fnmatch(own, pattern.rstrip("/")) for own in parts
    )
