"""Which files a path stands for: those that git does not ignore, without environments and build folders."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path

SUFFIXES = (".py", ".ipynb")
_LEFT_OUT = frozenset(
    {
        ".direnv",
        ".eggs",
        ".git",
        ".hg",
        ".ipynb_checkpoints",
        ".mypy_cache",
        ".nox",
        ".pytest_cache",
        ".ruff_cache",
        ".svn",
        ".tox",
        ".venv",
        "__pycache__",
        "__pypackages__",
        "_build",
        "build",
        "dist",
        "node_modules",
        "site-packages",
        "venv",
    }
)


def files_of(paths: Sequence[str]) -> list[str]:
    """Files by name, and those in folders; what is named itself is never left out."""
    found = (own for path in paths for own in (_files_in(path) if Path(path).is_dir() else [path]))
    return list(dict.fromkeys(found))


def _files_in(folder: str) -> list[str]:
    known = _known_to_git(folder)
    names = _walk(folder) if known is None else (name for name in known if not _LEFT_OUT.intersection(Path(name).parts))
    return sorted(os.path.join(folder, name) for name in names if name.endswith(SUFFIXES))


def _walk(folder: str) -> Iterator[str]:
    for root, folders, files in os.walk(folder):
        inner = (name for name in folders if name not in _LEFT_OUT)
        folders[:] = [name for name in inner if not os.path.exists(os.path.join(root, name, "pyvenv.cfg"))]
        yield from (os.path.relpath(os.path.join(root, name), folder) for name in files)


def _known_to_git(folder: str) -> list[str] | None:
    """The files of a folder that git does not ignore; ``None`` where it cannot say, or ignores the folder itself."""
    above = Path(folder).absolute()
    if not any((own / ".git").exists() for own in (above, *above.parents)):
        return None
    if _git(folder, "check-ignore", "-q", ".") is not None:
        return None
    listed = _git(folder, "ls-files", "-z", "--cached", "--others", "--exclude-standard")
    names = None if listed is None else [name for name in listed.split("\0") if name]
    return None if names is None else [name for name in names if os.path.lexists(os.path.join(folder, name))]


def _git(folder: str, *arguments: str) -> str | None:
    try:
        done = subprocess.run(
            ["git", "-C", folder, *arguments], capture_output=True, check=False, encoding="utf-8", errors="replace"
        )
    except OSError:
        return None
    return done.stdout if done.returncode == 0 else None
