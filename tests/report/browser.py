"""Chromium without a window, told what to do over a pipe (the Chrome DevTools protocol).

`python -m tests.report.browser` ends with 0 where there is one.
"""

from __future__ import annotations

import base64
import itertools
import json
import os
import select
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome", "chromium-headless-shell")
OPTIONS = (
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-background-networking",
    "--disable-component-update",
    "--no-first-run",
    "--hide-scrollbars",
    "--remote-debugging-pipe",
)
# Chromium reads commands from file 3 and writes to file 4.
START = "import os, sys; r, w, *command = sys.argv[1:]; os.dup2(int(r), 3); os.dup2(int(w), 4);"
START += " os.set_inheritable(3, True); os.set_inheritable(4, True); os.execvp(command[0], command)"
FIRST_ANSWER = 60.0
ANSWER = 30.0


def find_browser() -> str | None:
    """The path of Chromium: what the variable CHROMIUM says, else one of the usual names."""
    given = os.environ.get("CHROMIUM")
    return given or next((path for path in map(shutil.which, NAMES) if path), None)


class Browser:
    """One Chromium with one page."""

    def __init__(self, program: str) -> None:
        self._profile = tempfile.TemporaryDirectory(prefix="chromium-", ignore_cleanup_errors=True)
        self._log = Path(self._profile.name, "stderr")
        read_commands, self._write = os.pipe()
        self._read, write_answers = os.pipe()
        # above 4, so that one copy does not land on the other
        high = [os.dup(fd) for fd in (read_commands, write_answers)]
        command = [sys.executable, "-c", START, *map(str, high), program, *OPTIONS]
        with self._log.open("w") as log:
            self._process = subprocess.Popen(
                [*command, f"--user-data-dir={self._profile.name}", "about:blank"],
                pass_fds=high,
                stdout=log,
                stderr=log,
            )
        for fd in (read_commands, write_answers, *high):
            os.close(fd)
        self._numbers = itertools.count(1)
        self._buffer = b""
        self._session: str | None = None
        self.events: list[dict[str, Any]] = []
        """What the page told since it was opened: requests, dialogs, exceptions, messages."""
        target = self.send("Target.createTarget", FIRST_ANSWER, url="about:blank")["targetId"]
        self._session = self.send("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Network", "Runtime", "Log", "Accessibility"):
            self.send(f"{domain}.enable")

    def close(self) -> None:
        """End Chromium."""
        self._process.terminate()
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait(10)
        os.close(self._read)
        os.close(self._write)
        self._profile.cleanup()

    def send(self, method: str, timeout: float = ANSWER, **params: Any) -> dict[str, Any]:
        """Send a command and wait for its answer."""
        number = next(self._numbers)
        message: dict[str, Any] = {"id": number, "method": method, "params": params}
        if self._session is not None:
            message["sessionId"] = self._session
        os.write(self._write, json.dumps(message).encode() + b"\0")
        end = time.monotonic() + timeout
        while True:
            answer = self._next(end, method)
            if answer.get("id") != number:
                self.events.append(answer)
            elif "error" in answer:
                raise RuntimeError(f"{method}: {answer['error']}")
            else:
                return answer["result"]

    def _next(self, end: float, awaited: str) -> dict[str, Any]:
        while b"\0" not in self._buffer:
            ready, _, _ = select.select([self._read], [], [], max(0.0, end - time.monotonic()))
            part = os.read(self._read, 1 << 16) if ready else b""
            if not part:
                raise RuntimeError(f"Chromium did not answer to {awaited}:\n{self._log.read_text()[-2000:]}")
            self._buffer += part
        text, _, self._buffer = self._buffer.partition(b"\0")
        return json.loads(text)

    def open(self, path: Path, width: int = 1000, height: int = 800, dark: bool = False) -> None:
        """Show a page at that width in CSS pixels, and wait until it is loaded."""
        self.send("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False)
        self.emulate(dark=dark)
        self.events.clear()
        self.send("Page.navigate", url=path.absolute().as_uri())
        end = time.monotonic() + ANSWER
        while not any(event.get("method") == "Page.loadEventFired" for event in self.events):
            self.events.append(self._next(end, "Page.navigate"))

    def emulate(self, dark: bool = False, media: str = "") -> None:
        """What the page is told of the reader's wishes, and whether it is for print."""
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.send("Emulation.setEmulatedMedia", media=media, features=[scheme])

    def ask(self, expression: str) -> Any:
        """The value of a JavaScript expression; not subject to the page's policy."""
        answer = self.send("Runtime.evaluate", expression=expression, returnByValue=True)
        if "exceptionDetails" in answer:
            raise RuntimeError(f"{expression}: {answer['exceptionDetails']}")
        return answer["result"].get("value")

    def screenshot(self, height: int | None = None) -> bytes:
        """The page as PNG, the whole of it or so many pixels from the top."""
        width, full = self.ask("[document.documentElement.clientWidth, document.documentElement.scrollHeight]")
        clip = {"x": 0, "y": 0, "width": width, "height": height or full, "scale": 1}
        answer = self.send("Page.captureScreenshot", format="png", captureBeyondViewport=True, clip=clip)
        return base64.b64decode(answer["data"])

    def pdf(self) -> bytes:
        """The page as it would be printed."""
        return base64.b64decode(self.send("Page.printToPDF")["data"])


if __name__ == "__main__":
    sys.exit(find_browser() is None)
