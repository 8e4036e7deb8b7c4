"""A headless Chromium, driven over the DevTools protocol."""

import base64
import itertools
import json
import os
import shutil
import subprocess
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import pytest
from websockets.sync.client import connect

CHROMIUM = shutil.which("chromium")
FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync", "--disable-dev-shm-usage",
)  # fmt: skip
needs_chromium = pytest.mark.skipif(CHROMIUM is None, reason="Debian's chromium is not installed")


class Browser:
    """One tab of a browser with a profile of its own, while a `with` block runs.

    Args:
        folder: Where its profile is.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._ids = itertools.count(1)
        self.requested: list[str] = []
        """The addresses that the page asked for."""
        self.complaints: list[str] = []
        """What stands on the console as a warning or an error, and exceptions that nobody caught."""

    def __enter__(self) -> Self:
        assert CHROMIUM is not None
        with ExitStack() as stack:
            self._process = subprocess.Popen(
                [CHROMIUM, *FLAGS, f"--user-data-dir={self._folder}", "--remote-debugging-port=0", "about:blank"],
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                env=os.environ | {"HOME": str(self._folder)},
            )
            stack.callback(self._end)
            address = self._address()
            # No pings: a busy machine answers them late, and `command` has a limit of its own.
            self._socket = stack.enter_context(connect(address, max_size=None, open_timeout=60, ping_interval=None))
            target = self.command("Target.createTarget", url="about:blank")["targetId"]
            self._session = self.command("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
            for domain in ("Page", "Runtime", "Network", "Log"):
                self.command(f"{domain}.enable")
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    def _end(self) -> None:
        self._process.kill()
        self._process.wait(20)

    _session = ""

    def command(self, method: str, **params: Any) -> Any:
        """Send a command, note what happens meanwhile, and return the answer."""
        number = next(self._ids)
        session = {"sessionId": self._session} if self._session else {}
        self._socket.send(json.dumps({"id": number, "method": method, "params": params, **session}))
        while True:
            message = json.loads(self._socket.recv(timeout=60))
            if message.get("id") == number:
                assert "error" not in message, (method, message["error"])
                return message["result"]
            self._note(message.get("method", ""), message.get("params", {}))

    def open(self, url: str) -> None:
        """Open a page in place of the one before, whose complaints are forgotten."""
        self.complaints.clear()
        self.command("Page.navigate", url=url)
        self.wait_for("document.readyState === 'complete'")

    def evaluate(self, expression: str) -> Any:
        """Return the value of an expression; a promise is awaited."""
        told = self.command("Runtime.evaluate", expression=expression, awaitPromise=True, returnByValue=True)
        assert "exceptionDetails" not in told, told["exceptionDetails"]
        return told["result"].get("value")

    def wait_for(self, expression: str, seconds: float = 40) -> Any:
        """Wait until an expression is true, and return its value."""
        return self.wait_until(lambda: self.evaluate(expression), expression, seconds)

    def wait_until(self, condition: Callable[[], Any], what: str, seconds: float = 40) -> Any:
        """Wait until a condition is true, and return what it returned."""
        end = time.monotonic() + seconds
        while not (value := condition()):
            assert time.monotonic() < end, f"{what} did not come true: {self.complaints}"
            time.sleep(0.05)
        return value

    def look(self, width: int, height: int, scheme: str) -> None:
        """Set the size of the window, and `light` or `dark`."""
        self.command(
            "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False
        )
        self.command("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])

    def press(self, key: str, text: str = "") -> None:
        """Press a key of the keyboard and let it go."""
        codes = {"Tab": 9, "Enter": 13, "Escape": 27}
        more = {"text": "\r"} if key == "Enter" else {"text": text} if text else {}
        for kind in ("keyDown", "keyUp"):
            self.command(
                "Input.dispatchKeyEvent", type=kind, key=key, code=key, windowsVirtualKeyCode=codes.get(key, 0), **more
            )

    def type(self, text: str) -> None:
        """Write a text where the focus is."""
        self.command("Input.insertText", text=text)

    def screenshot(self, path: Path, *, whole: bool = False) -> None:
        """Write a PNG of the window, or of the whole page."""
        told = self.command("Page.captureScreenshot", format="png", captureBeyondViewport=whole)
        path.write_bytes(base64.b64decode(told["data"]))

    def _address(self) -> str:
        port_file = self._folder / "DevToolsActivePort"
        end = time.monotonic() + 60
        while not (port_file.exists() and port_file.read_text().count("\n")):
            assert self._process.poll() is None, "the browser ended"
            assert time.monotonic() < end, "the browser did not start"
            time.sleep(0.05)
        port, path = port_file.read_text().split()
        return f"ws://127.0.0.1:{port}{path}"

    def _note(self, method: str, params: dict[str, Any]) -> None:
        if method == "Network.requestWillBeSent":
            self.requested.append(params["request"]["url"])
        elif method == "Runtime.consoleAPICalled" and params["type"] in {"error", "warning", "assert"}:
            self.complaints.append(str(params["args"]))
        elif method == "Runtime.exceptionThrown":
            self.complaints.append(str(params["exceptionDetails"]))
        elif method == "Log.entryAdded" and params["entry"]["level"] in {"error", "warning"}:
            self.complaints.append(str(params["entry"]))
