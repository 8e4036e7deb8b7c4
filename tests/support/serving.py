"""A service as users start it: `sluicegate serve` in a process of its own, on free ports."""

import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Self


class Serving:
    """Run `sluicegate serve` while a `with` block runs.

    Args:
        *options: Its options.
        log: A file for what it writes to standard error.
        environ: More environment variables.
    """

    def __init__(self, *options: str, log: Path, environ: dict[str, str] | None = None) -> None:
        program = str(Path(sys.executable).with_name("sluicegate"))
        self._log = log
        with log.open("wb") as file:
            self.process = subprocess.Popen(
                [program, "serve", *options],
                stdout=subprocess.PIPE,
                stderr=file,
                text=True,
                env=os.environ | (environ or {}),
            )
        self.line = ""
        """What it said when it was ready."""
        self.addresses: dict[str, str] = {}
        """Where it listens, by protocol."""

    def __enter__(self) -> Self:
        stdout = self.process.stdout
        assert stdout is not None
        ready, _, _ = select.select([stdout], [], [], 60)
        self.line = stdout.readline() if ready else ""
        assert " serves " in self.line, f"it did not start: {self._log.read_text()}"
        places = self.line.partition(" serves ")[2].partition(";")[0]
        self.addresses = dict([place.split("=", 1) for place in places.split()])
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()
        if self.process.stdout is not None:
            self.process.stdout.close()

    def stop(self) -> int:
        """End it as an init system does, and return its exit status."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        try:
            return self.process.wait(30)
        except subprocess.TimeoutExpired:
            self.process.kill()
            raise

    def port(self, protocol: str) -> int:
        """Return the port of a protocol."""
        return int(self.addresses[protocol].rpartition(":")[2])


def eventually(condition: Callable[[], object], seconds: float = 15) -> None:
    """Wait until a function returns something true."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not come true in time"
        time.sleep(0.05)
