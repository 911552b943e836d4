"""Debian's Chromium without a window, for what only a browser can say of a page.

It is spoken to over a pipe, in the DevTools protocol: JSON with a null byte after it.
"""

from __future__ import annotations

import json
import os
import select
import subprocess
import time
from pathlib import Path
from tempfile import TemporaryDirectory
from types import TracebackType
from typing import Any, Self

from tests.lab import LabError

PROGRAM = Path("/usr/lib/chromium/chromium")
PATIENCE = 60.0
OPTIONS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--disable-extensions",
    "--disable-background-networking", "--disable-component-update", "--no-first-run",
    "--remote-debugging-pipe",
)  # fmt: skip


class Browser:
    """One browser with one page.

    Attributes:
        complaints: what the page's console, the page's policy or a failed script has said.
        requests: every address that was asked for.
    """

    def __init__(self) -> None:
        if not PROGRAM.exists():
            raise LabError("chromium is not installed")
        self.complaints: list[str] = []
        self.requests: list[str] = []
        self._home = TemporaryDirectory(ignore_cleanup_errors=True)
        self._number, self._buffer = 0, b""
        self._loaded = False

    def __enter__(self) -> Self:
        theirs_in, self._out = os.pipe()
        self._in, theirs_out = os.pipe()
        words = [str(PROGRAM), *OPTIONS, f"--user-data-dir={self._home.name}", "about:blank"]
        # The pipe is looked for at the numbers 3 and 4.
        self._process = subprocess.Popen(
            ["bash", "-c", f'exec 3<&{theirs_in} 4>&{theirs_out}; exec "$@"', "browser", *words],
            pass_fds=(theirs_in, theirs_out),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        os.close(theirs_in)
        os.close(theirs_out)
        targets = self._call("Target.getTargets")["targetInfos"]
        page = next(target["targetId"] for target in targets if target["type"] == "page")
        attached = self._call("Target.attachToTarget", {"targetId": page, "flatten": True})
        self._session: str | None = attached["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self._call(f"{domain}.enable", session=True)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, failure: BaseException | None, trace: TracebackType | None
    ) -> None:
        os.close(self._out)  # it ends when nobody speaks to it any more
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        os.close(self._in)
        self._home.cleanup()

    def open(self, page: Path) -> None:
        """Load a file, and forget what was said of the one before."""
        self.complaints.clear()
        self.requests.clear()
        self._loaded = False
        self._call("Page.navigate", {"url": page.as_uri()}, session=True)
        while not self._loaded:
            self._take(self._read())

    def run(self, script: str) -> Any:
        """What an expression comes to, in the page."""
        made = {"expression": script, "returnByValue": True, "userGesture": True}
        answer = self._call("Runtime.evaluate", made, session=True)
        assert "exceptionDetails" not in answer, answer["exceptionDetails"]
        return answer["result"].get("value")

    def look(self, *, width: int = 1100, medium: str = "screen", scheme: str = "light") -> None:
        """Have the page seen so."""
        size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": False}
        self._call("Emulation.setDeviceMetricsOverride", size, session=True)
        features = [{"name": "prefers-color-scheme", "value": scheme}]
        self._call("Emulation.setEmulatedMedia", {"media": medium, "features": features}, session=True)

    def picture(self, *, height: int) -> str:
        """The top of the page as a PNG in base64, as wide as the window."""
        width = self.run("innerWidth")
        clip = {"x": 0, "y": 0, "width": width, "height": height, "scale": 1}
        made = {"format": "png", "clip": clip, "captureBeyondViewport": True}
        picture: str = self._call("Page.captureScreenshot", made, session=True)["data"]
        return picture

    def _call(self, method: str, params: dict[str, Any] | None = None, *, session: bool = False) -> Any:
        self._number += 1
        number = self._number
        message = {"id": number, "method": method, "params": params or {}}
        if session:
            message["sessionId"] = self._session
        os.write(self._out, json.dumps(message).encode() + b"\0")
        while True:
            said = self._read()
            if said.get("id") == number:
                assert "error" not in said, said["error"]
                return said["result"]
            self._take(said)

    def _read(self) -> dict[str, Any]:
        deadline = time.monotonic() + PATIENCE
        while b"\0" not in self._buffer:
            ready, _, _ = select.select([self._in], [], [], max(0, deadline - time.monotonic()))
            chunk = os.read(self._in, 1 << 16) if ready else b""
            if not chunk:
                raise LabError("chromium does not answer")
            self._buffer += chunk
        message, _, self._buffer = self._buffer.partition(b"\0")
        said: dict[str, Any] = json.loads(message)
        return said

    def _take(self, said: dict[str, Any]) -> None:
        """Note down an event."""
        params = said.get("params", {})
        match said.get("method"):
            case "Page.loadEventFired":
                self._loaded = True
            case "Network.requestWillBeSent":
                self.requests.append(params["request"]["url"])
            case "Log.entryAdded":
                self.complaints.append(params["entry"]["text"])
            case "Runtime.exceptionThrown":
                self.complaints.append(str(params["exceptionDetails"]))
            case "Runtime.consoleAPICalled":
                self.complaints.append(str(params["args"]))
