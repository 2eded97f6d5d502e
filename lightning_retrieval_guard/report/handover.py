"""What a guard found, on its way from a forked or spawned process to the one that called the Trainer."""

from __future__ import annotations

import json
import os
import secrets
import tempfile
import weakref
from pathlib import Path

from lightning_retrieval_guard.report.log import FindingLog


class Handover:
    """A file that rank zero writes and the caller reads: Lightning's own pipe hangs where much is sent.

    The file is made where it is needed, for this user alone, and is gone with the guard.
    """

    def __init__(self) -> None:
        self._caller = os.getpid()
        self._path = Path(tempfile.gettempdir(), f"lightning-retrieval-guard-{secrets.token_hex(16)}")
        self._read = 0  # the time of the last version that this process knows
        weakref.finalize(self, _remove, self._path, self._caller)

    def give(self, log: FindingLog) -> None:
        """Write everything, where another process called the Trainer; raises OSError where that is not possible."""
        if os.getpid() == self._caller:
            return
        draft = self._path.with_suffix(f".{secrets.token_hex(8)}")
        try:
            # In ASCII, with escapes, because a key may hold half of a surrogate pair.
            with open(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="ascii") as file:
                json.dump(log.to_payload(), file)
            written = draft.stat().st_mtime_ns
            os.replace(draft, self._path)
            self._read = written
        except BaseException:
            draft.unlink(missing_ok=True)
            raise

    def take(self) -> FindingLog | None:
        """What another process wrote since this one last looked; ``None`` where that is nothing."""
        written = self._path.stat().st_mtime_ns if self._path.exists() else self._read
        if written == self._read:
            return None
        self._read = written
        return FindingLog.from_payload(json.loads(self._path.read_text(encoding="ascii")))


def _remove(path: Path, process: int) -> None:
    if os.getpid() == process:
        path.unlink(missing_ok=True)
