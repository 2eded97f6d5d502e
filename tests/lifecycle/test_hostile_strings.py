"""What a key or a file name holds drives neither the terminal nor a browser."""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any

import pytest
from lightning.pytorch import LightningModule

from lightning_retrieval_guard import GuardError, GuardWarning, RetrievalGuard

from .programs import RestartingIds, make_trainer, restarting_ids, rows_of

KEYS = {
    "colour": "\x1b[31mred\x1b[0m",
    "newline": "fine\nerror: LRG999 nothing of the kind",
    "direction": "\u202eecalper",
    "script": "<script>alert(1)</script>",
    "attribute": "\" onmouseover='alert(1)'",
    "surrogate": "half \udc9b",
}
BAD = [char for key in KEYS.values() for char in key if not char.isprintable()]


class Logs(RestartingIds, LightningModule):
    """A wrong program, which logs under a key that it was given, from a file of that name."""

    def __init__(self, key: str) -> None:
        super().__init__()
        self.key = key
        code = compile("def log(module):\n    module.log(module.key, module.metric)\n", f"/tmp/{key}.py", "exec")
        self.scope: dict[str, Any] = {}
        exec(code, self.scope)

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        self.metric.update(*rows_of(batch, restarting_ids(batch)))
        self.scope["log"](self)


def is_clean(text: str) -> bool:
    return not any(char in text for char in BAD)


@pytest.mark.parametrize("key", KEYS.values(), ids=KEYS)
def test_warning_table_and_reports(key: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("report.json", "report.html"):
        with warnings.catch_warnings(record=True) as seen:
            warnings.simplefilter("always")
            guard = RetrievalGuard(report=tmp_path / name)
            make_trainer(guard).validate(Logs(key), verbose=False)
        said = [one for one in seen if one.category is GuardWarning]
        assert said
        assert all(is_clean(line) for one in said for line in f"{one.filename}{one.message}".split("\n"))
        assert "RetrievalGuard: 1 fault" in capsys.readouterr().err
    document = json.loads((tmp_path / "report.json").read_text(encoding="utf-8"))
    assert list(document["keys"]) == [key]
    assert is_clean((tmp_path / "report.json").read_text(encoding="utf-8").replace("\n", ""))
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert is_clean(page.replace("\n", ""))
    assert "<script>alert" not in page
    assert "onmouseover='" not in page


@pytest.mark.parametrize("key", KEYS.values(), ids=KEYS)
def test_the_error_of_strict_mode(key: str) -> None:
    with pytest.raises(GuardError) as caught:
        make_trainer(RetrievalGuard(mode="strict")).validate(Logs(key), verbose=False)
    assert all(is_clean(line) for line in str(caught.value).split("\n"))
    assert "LRG301 restarting-query-ids" in str(caught.value).split("\n")[0]
