"""Where the package is not installed with its flake8 plugin, its entry point is put on the path."""

from __future__ import annotations

import os
from collections.abc import Iterator
from importlib.metadata import entry_points
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
ENTRY = "[flake8.extension]\nLRG = lightning_retrieval_guard.lint.plugin:Plugin\n"


@pytest.fixture(scope="session", autouse=True)
def plugin(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """flake8 finds the plugin of this checkout, in this process and in those that it starts."""
    folders = [ROOT]
    if not any(point.name == "LRG" for point in entry_points(group="flake8.extension")):
        home = tmp_path_factory.mktemp("installed")
        info = home / "lightning_retrieval_guard-0.2.0.dist-info"
        info.mkdir()
        (info / "METADATA").write_text("Metadata-Version: 2.1\nName: lightning-retrieval-guard\nVersion: 0.2.0\n")
        (info / "entry_points.txt").write_text(ENTRY)
        folders.append(home)
    with pytest.MonkeyPatch.context() as patch:
        for folder in folders:
            patch.syspath_prepend(folder)
        known = os.environ.get("PYTHONPATH", "")
        patch.setenv("PYTHONPATH", os.pathsep.join([*map(str, folders), *filter(None, [known])]))
        yield
