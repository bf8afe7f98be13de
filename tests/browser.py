"""A real browser for tests: headless Chromium, spoken to over a pipe; no driver, no network.

The protocol is Chromium's own (DevTools); commands and answers are JSON texts, each ended by NUL.
"""

from __future__ import annotations

import base64
import contextlib
import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome")
_FLAGS = (
    *("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--mute-audio"),
    *("--no-first-run", "--disable-extensions", "--disable-background-networking"),
    *("--disable-component-update", "--hide-scrollbars", "--remote-debugging-pipe"),
)
#: keys by name: code that the browser knows them by, and the text that they type
_KEYS = {"Tab": (9, ""), "Enter": (13, "\r"), " ": (32, " "), "ArrowDown": (40, "")}


def find_browser() -> str | None:
    """Return the path of a Chromium, or None where there is none."""
    return next((path for name in NAMES if (path := shutil.which(name))), None)


class Tab:
    """One page.

    Attributes:
        errors: what went wrong in the page so far: exceptions, refused or failed requests.
        requests: addresses that the page asked for, other than those within itself.
    """

    def __init__(self, to: int, back: int) -> None:
        self._to, self._back, self._rest, self._number = to, back, b"", 0
        self._session = ""
        self._events: list[dict[str, Any]] = []
        self.errors: list[str] = []
        self.requests: list[str] = []

    def attach(self) -> None:
        target = self.send("Target.createTarget", url="about:blank")["targetId"]
        answer = self.send("Target.attachToTarget", targetId=target, flatten=True)
        self._session = answer["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.send(f"{domain}.enable")

    def send(self, method: str, **parameters: Any) -> dict[str, Any]:
        self._number += 1
        command = {"id": self._number, "method": method, "params": parameters}
        if self._session:
            command["sessionId"] = self._session
        os.write(self._to, json.dumps(command).encode() + b"\0")
        while True:
            message = self._read()
            if message.get("id") == self._number:
                assert "error" not in message, message["error"]
                return dict(message["result"])
            self._note(message)

    def open(self, file: Path, fragment: str = "") -> None:
        """Load a file and wait for it."""
        self._events.clear()
        self.send("Page.navigate", url=file.resolve().as_uri() + fragment)
        while not any(e.get("method") == "Page.loadEventFired" for e in self._events):
            self._note(self._read())

    def run(self, script: str) -> Any:
        """Return what an expression in the page comes to; promises are waited for."""
        options = {"awaitPromise": True, "returnByValue": True}
        answer = self.send("Runtime.evaluate", expression=script, **options)
        assert "exceptionDetails" not in answer, answer["exceptionDetails"]
        return answer["result"].get("value")

    def size(self, width: int, height: int) -> None:
        """Make the window as wide as a desktop's or a phone's."""
        fields = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600}
        self.send("Emulation.setDeviceMetricsOverride", **fields)

    def press(self, key: str, times: int = 1) -> None:
        """Press a key as a person does."""
        code, text = _KEYS[key]
        for _ in range(times):
            fields = {"key": key, "windowsVirtualKeyCode": code}
            self.send("Input.dispatchKeyEvent", type="keyDown", text=text, **fields)
            self.send("Input.dispatchKeyEvent", type="keyUp", **fields)

    def picture(self, whole: bool = False) -> bytes:
        """A PNG of what is seen, or of the whole page."""
        answer = self.send("Page.captureScreenshot", captureBeyondViewport=whole)
        return base64.b64decode(answer["data"])

    def _read(self) -> dict[str, Any]:
        while b"\0" not in self._rest:
            piece = os.read(self._back, 1 << 16)
            assert piece, "the browser closed its pipe"
            self._rest += piece
        text, _, self._rest = self._rest.partition(b"\0")
        return dict(json.loads(text))

    def _note(self, message: dict[str, Any]) -> None:
        self._events.append(message)
        method, fields = message.get("method", ""), message.get("params", {})
        if method == "Runtime.exceptionThrown":
            self.errors.append(json.dumps(fields["exceptionDetails"]))
        elif method == "Log.entryAdded" and fields["entry"]["level"] in ("error", "warning"):
            self.errors.append(fields["entry"]["text"])
        elif method == "Network.requestWillBeSent":
            url = fields["request"]["url"]
            if not url.startswith(("data:", "file:")):
                self.requests.append(url)


@contextlib.contextmanager
def browser_tab(program: str, profile: Path) -> Iterator[Tab]:
    """Start a browser with a fresh profile, give one page of it, and end it."""
    to_read, to_write = os.pipe()
    back_read, back_write = os.pipe()

    def connect() -> None:  # the browser reads from 3 and writes to 4
        kept = os.dup(to_read), os.dup(back_write)
        os.dup2(kept[0], 3)
        os.dup2(kept[1], 4)

    command = [program, *_FLAGS, f"--user-data-dir={profile}"]
    null = subprocess.DEVNULL
    process = subprocess.Popen(
        command, stdin=null, stdout=null, stderr=null, preexec_fn=connect, close_fds=False
    )
    os.close(to_read)
    os.close(back_write)
    try:
        tab = Tab(to_write, back_read)
        tab.attach()
        yield tab
    finally:
        process.terminate()
        process.wait(30)
        os.close(to_write)
        os.close(back_read)
