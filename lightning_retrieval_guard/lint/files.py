"""Which files a path stands for, and what flake8's own configuration leaves out of them."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Iterator, Sequence
from configparser import ConfigParser, Error
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path

_SUFFIXES = (".py", ".ipynb")
_CONFIGURATION_FILES = ("setup.cfg", "tox.ini", ".flake8")
# Environments and build folders.
_SKIPPED = (
    ".direnv .eggs .git .hg .ipynb_checkpoints .mypy_cache .nox .pytest_cache .ruff_cache .svn .tox .venv __pycache__"
    " __pypackages__ _build build dist node_modules site-packages venv"
)
_SKIPPED_FOLDERS = frozenset(_SKIPPED.split())


@dataclass(frozen=True)
class Configuration:
    """The part of flake8's configuration that is about files and codes, so that command and plugin show the same."""

    exclude: tuple[str, ...] = ()  # patterns of files and folders
    ignore: tuple[str, ...] = ()  # codes or prefixes
    per_file: tuple[tuple[str, str], ...] = ()  # a pattern of files, and a code that is not reported in them

    def excludes(self, path: str) -> bool:
        """Whether a file that was found in a folder is left out."""
        return any(_fits(path, pattern) for pattern in self.exclude)

    def ignored(self, path: str) -> tuple[str, ...]:
        """The codes and prefixes that are not reported in a file."""
        return (*self.ignore, *(code for pattern, code in self.per_file if _fits(path, pattern)))


def read_configuration(folder: Path) -> Configuration:
    """The configuration of the folder that the command runs in, as flake8 finds it."""
    for name in _CONFIGURATION_FILES:
        parser = ConfigParser(interpolation=None)
        try:
            parser.read(folder / name, encoding="utf-8")
        except (Error, UnicodeDecodeError):
            continue
        if parser.has_section("flake8"):
            options = {key.replace("_", "-"): value for key, value in parser["flake8"].items()}
            exclude = _split(options.get("exclude", ""), options.get("extend-exclude", ""))
            ignore = _split(options.get("ignore", ""), options.get("extend-ignore", ""))
            return Configuration(exclude, ignore, tuple(_pairs(options.get("per-file-ignores", ""))))
    return Configuration()


def _split(*texts: str) -> tuple[str, ...]:
    lines = (line.partition("#")[0] for text in texts for line in text.splitlines())
    return tuple(part for line in lines for part in re.split(r"[,\s]+", line) if part)


def _pairs(text: str) -> Iterator[tuple[str, str]]:
    for match in re.finditer(r"([^\s:,][^:]*):\s*([A-Z]+\d*(?:[,\s]+[A-Z]+\d*\b(?!\s*:))*)", text):
        for pattern in _split(match[1]):
            yield from ((pattern, code) for code in _split(match[2]))


def _fits(path: str, pattern: str) -> bool:
    pattern = pattern.rstrip("/")
    return any(fnmatch(part, pattern) for part in (Path(path).as_posix(), *Path(path).parts))


def files_of(paths: Sequence[str], configuration: Configuration) -> list[str]:
    """Files by name, and those in folders that neither git nor flake8 ignores; what is named itself always counts."""
    files: dict[str, None] = {}
    for path in paths:
        inner = _files_in(path) if Path(path).is_dir() else [path]
        files |= dict.fromkeys(file for file in inner if file in paths or not configuration.excludes(file))
    return list(files)


def _files_in(folder: str) -> list[str]:
    listed = _listed_by_git(folder)
    names = _walk(folder) if listed is None else [n for n in listed if _SKIPPED_FOLDERS.isdisjoint(Path(n).parts)]
    return sorted(os.path.join(folder, name) for name in names if name.endswith(_SUFFIXES))


def _walk(folder: str) -> Iterator[str]:
    for root, folders, files in os.walk(folder):
        inner = (name for name in folders if name not in _SKIPPED_FOLDERS)
        folders[:] = [name for name in inner if not os.path.exists(os.path.join(root, name, "pyvenv.cfg"))]
        yield from (os.path.relpath(os.path.join(root, name), folder) for name in files)


def _listed_by_git(folder: str) -> list[str] | None:
    """The files of a folder that git does not ignore; ``None`` where it cannot say, or ignores the folder itself."""
    above = Path(folder).absolute()
    if not any((parent / ".git").exists() for parent in (above, *above.parents)):
        return None
    if _git(folder, "check-ignore", "-q", ".") is not None:
        return None
    listed = _git(folder, "ls-files", "-z", "--cached", "--others", "--exclude-standard")
    if listed is None:
        return None
    return [name for name in listed.split("\0") if name and os.path.lexists(os.path.join(folder, name))]


def _git(folder: str, *arguments: str) -> str | None:
    try:
        done = subprocess.run(
            ["git", "-C", folder, *arguments], capture_output=True, check=False, encoding="utf-8", errors="replace"
        )
    except OSError:
        return None
    return done.stdout if done.returncode == 0 else None
