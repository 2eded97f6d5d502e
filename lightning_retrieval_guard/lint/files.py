"""Which files a path stands for, and what flake8's own configuration leaves out, so that command and plugin agree."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from configparser import ConfigParser, Error
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

Configuration = Mapping[str, str]  # options of flake8, with hyphens, as they are written


def read_configuration(folder: Path) -> Configuration:
    """The configuration of the folder that the command runs in, as flake8 finds it."""
    # as flake8 does: the first file with a section counts, and none is merged with another
    for name in _CONFIGURATION_FILES:
        parser = ConfigParser(interpolation=None)
        try:
            parser.read(folder / name, encoding="utf-8")
        except (Error, UnicodeDecodeError):
            continue
        if parser.has_section("flake8"):
            return {key.replace("_", "-"): value for key, value in parser["flake8"].items()}
    return {}


def ignored_codes(path: str, configuration: Configuration) -> tuple[str, ...]:
    """The codes and prefixes that are not reported in a file."""
    ignored = [*_split(configuration.get("ignore", "")), *_split(configuration.get("extend-ignore", ""))]
    per_file = r"([^\s:,][^:]*):\s*([A-Z]+\d*(?:[,\s]+[A-Z]+\d*\b(?!\s*:))*)"
    for patterns, codes in re.findall(per_file, configuration.get("per-file-ignores", "")):
        ignored += _split(codes) if _fits(path, patterns) else []
    return tuple(ignored)


def _split(text: str) -> list[str]:
    lines = [line.partition("#")[0] for line in text.splitlines()]
    return [entry for line in lines for entry in re.split(r"[,\s]+", line) if entry]


def _fits(path: str, patterns: str) -> bool:
    """Whether one of some patterns fits a path or a folder in it."""
    # as in flake8, a pattern without a slash is about names
    names = (Path(path).as_posix(), *Path(path).parts)
    return any(fnmatch(name, pattern.rstrip("/")) for pattern in _split(patterns) for name in names)


def files_of(paths: Sequence[str], configuration: Configuration) -> list[str]:
    """Files by name, and those in folders that neither git nor flake8 ignores; what is named itself always counts."""
    excluded = f"{configuration.get('exclude', '')}\n{configuration.get('extend-exclude', '')}"
    files: dict[str, None] = {}
    for path in paths:
        inner = _files_in(path) if Path(path).is_dir() else [path]
        files |= dict.fromkeys(file for file in inner if file in paths or not _fits(file, excluded))
    return list(files)


def _files_in(folder: str) -> list[str]:
    listed = _listed_by_git(folder)
    names = list(_walk(folder) if listed is None else _without_skipped(folder, listed))
    paths = [os.path.join(folder, name) for name in names]
    # what is a folder for git is a repository of its own, such as a submodule
    nested = [path for path in paths if os.path.isdir(path) and not os.path.islink(path)]
    files = [path for path in paths if path.endswith(_SUFFIXES) and path not in nested]
    return sorted([*files, *(file for path in nested for file in _files_in(path))])


def _without_skipped(folder: str, names: Sequence[str]) -> Iterator[str]:
    """The names that stand in no environment and in no build folder."""
    parents = {parent for name in names for parent in Path(name).parents if parent.parts}
    environments = {parent for parent in parents if os.path.exists(Path(folder, parent, "pyvenv.cfg"))}
    for name in names:
        if _SKIPPED_FOLDERS.isdisjoint(Path(name).parts) and environments.isdisjoint(Path(name).parents):
            yield name


def _walk(folder: str) -> Iterator[str]:
    for root, folders, files in os.walk(folder):
        inner = (name for name in folders if name not in _SKIPPED_FOLDERS)
        folders[:] = [name for name in inner if not os.path.exists(os.path.join(root, name, "pyvenv.cfg"))]
        yield from (os.path.relpath(os.path.join(root, name), folder) for name in files)


def _listed_by_git(folder: str) -> list[str] | None:
    """The files of a folder that git does not ignore; ``None`` where it cannot say, or ignores the folder itself."""
    is_ignored = _git(folder, "check-ignore", "-q", ".") is not None
    listed = None if is_ignored else _git(folder, "ls-files", "-z", "--cached", "--others", "--exclude-standard")
    if listed is None:
        return None
    # the index names files too that are deleted
    return [name for name in listed.split("\0") if name and os.path.lexists(os.path.join(folder, name))]


def _git(folder: str, *arguments: str) -> str | None:
    # a file name may hold bytes that are no UTF-8
    command = ["git", "-C", folder, *arguments]
    try:
        done = subprocess.run(command, capture_output=True, check=False, encoding="utf-8", errors="surrogateescape")
    except OSError:
        return None
    return done.stdout if done.returncode == 0 else None
