"""Several processes that serve on the same ports, and the one that watches over them.

The ports are shared with SO_REUSEPORT: the kernel gives each connection to one of the workers. The watching process binds them
too, without listening, so that a port that it chose stays its own while workers come and go.
"""

import asyncio
import logging
import multiprocessing
import os
import signal
import sys
import tempfile
from contextlib import ExitStack
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from typing import Final, cast

import msgspec

from sluicegate.domain.errors import InvalidInputError
from sluicegate.infrastructure.settings import Settings
from sluicegate.presentation.service.admin.peers import Peers
from sluicegate.presentation.service.process import log_to_stderr, say, serve_here
from sluicegate.presentation.service.service import Service
from sluicegate.presentation.service.settings import Address, ServiceSettings, reserve_port
from sluicegate.runtime.system_clock import SystemClock

_PAUSES_S: Final = (0.1, 0.5, 1.0, 2.0, 5.0)
"""How long to wait before a worker that ended is started again: longer each time."""

_STEADY_US: Final = 30_000_000
"""After how long a worker counts as one that runs."""

_START_SECONDS: Final = 60.0
_LOOK_SECONDS: Final = 0.1

_logger = logging.getLogger("sluicegate")


def supervise(settings: ServiceSettings, limiter_settings: Settings) -> int:
    """Run the workers until a signal ends them, and return the exit status.

    Raises:
        InvalidInputError: If a worker cannot begin.
    """
    with ExitStack() as stack:
        # All of them show the same client in the same way.
        settings = msgspec.structs.replace(_reserve_ports(settings, stack), hot_keys_secret=os.urandom(16))
        directory = stack.enter_context(tempfile.TemporaryDirectory(prefix="sluicegate-"))
        supervisor = _Supervisor(settings, limiter_settings, directory)
        try:
            supervisor.start()
            say(supervisor.places, settings, limiter_settings)
            supervisor.watch()
        finally:
            supervisor.stop()
    return 0


class _Worker:
    """One worker as its supervisor sees it."""

    def __init__(self, process: BaseProcess, ready: Connection, started_us: int) -> None:
        self.process = process
        self.ready = ready
        self.started_us = started_us


class _Supervisor:
    """Start workers, and start those again that end by themselves."""

    def __init__(self, settings: ServiceSettings, limiter_settings: Settings, directory: str) -> None:
        self._settings = settings
        self._limiter_settings = limiter_settings
        self._directory = directory
        self._clock = SystemClock()
        self._workers: dict[int, _Worker] = {}
        self._failures: dict[int, int] = {}
        self._due_us: dict[int, int] = {}
        self._stopping = False
        self.places: dict[str, str] = {}
        """Where the workers listen, by protocol."""

    def start(self) -> None:
        """Start all workers, and wait until they serve.

        Raises:
            InvalidInputError: If one cannot begin.
        """
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._note_stop)
        signal.signal(signal.SIGHUP, self._pass_on_reload)
        for index in range(self._settings.workers):
            self._start_worker(index, is_late=False)
        for worker in self._workers.values():
            self.places |= self._await_ready(worker)

    def watch(self) -> None:
        """Return when a signal says so."""
        while not self._stopping:
            sentinels = {worker.process.sentinel: index for index, worker in self._workers.items()}
            for sentinel in wait(list(sentinels), _LOOK_SECONDS):
                self._note_end(sentinels[cast("int", sentinel)])
            for index, due_us in list(self._due_us.items()):
                if self._clock.now_us() >= due_us and not self._stopping:
                    del self._due_us[index]
                    self._start_worker(index, is_late=True)

    def stop(self) -> None:
        """End the workers: gracefully, and after their time by force."""
        for worker in self._workers.values():
            worker.process.terminate()
        patience_s = self._settings.leave_seconds + self._settings.grace_seconds + 5
        end_us = self._clock.now_us() + int(patience_s * 1e6)
        for worker in self._workers.values():
            worker.process.join(max(0.0, (end_us - self._clock.now_us()) / 1e6))
            if worker.process.is_alive():
                worker.process.kill()
                worker.process.join()

    def _start_worker(self, index: int, *, is_late: bool) -> None:
        ready, tell = multiprocessing.Pipe(duplex=False)
        settings = self._settings
        if settings.audit_log:  # rotation is no work for several
            settings = msgspec.structs.replace(settings, audit_log=f"{settings.audit_log}.worker-{index}")
        if index:  # the first one answers for all
            settings = msgspec.structs.replace(
                settings, admin=None, metrics=None, measured=settings.counts, watched=settings.shows
            )
        process = multiprocessing.get_context("spawn").Process(
            target=_run_worker,
            args=(settings, self._limiter_settings, Peers(self._directory, index, is_late=is_late), tell),
            daemon=False,
        )
        process.start()
        tell.close()
        self._workers[index] = _Worker(process, ready, self._clock.now_us())

    def _await_ready(self, worker: _Worker) -> dict[str, str]:
        """Return where a worker listens.

        Raises:
            InvalidInputError: If it cannot begin.
        """
        told: object = None
        if worker.ready.poll(_START_SECONDS):
            try:
                told = worker.ready.recv()
            except EOFError:
                told = None
        if isinstance(told, dict):
            return cast("dict[str, str]", told)
        raise InvalidInputError(str(told or "a worker ended before it could serve"))

    def _note_end(self, index: int) -> None:
        worker = self._workers.pop(index)
        worker.process.join()
        if self._stopping:
            return
        lived_us = self._clock.now_us() - worker.started_us
        failures = self._failures[index] = 0 if lived_us > _STEADY_US else self._failures.get(index, -1) + 1
        pause_s = _PAUSES_S[min(failures, len(_PAUSES_S) - 1)]
        _logger.error("Worker %d ended with status %s; it is started again.", index, worker.process.exitcode)
        self._due_us[index] = self._clock.now_us() + int(pause_s * 1e6)

    def _note_stop(self, *_: object) -> None:
        self._stopping = True

    def _pass_on_reload(self, *_: object) -> None:
        for worker in self._workers.values():
            if worker.process.pid is not None:
                os.kill(worker.process.pid, signal.SIGHUP)


def _reserve_ports(settings: ServiceSettings, stack: ExitStack) -> ServiceSettings:
    """Bind the ports, and return the settings with those that were chosen.

    Raises:
        InvalidInputError: If one is taken.
    """
    chosen: dict[str, Address] = {}
    for protocol in ("grpc", "http", "resp"):
        address: Address | None = getattr(settings, protocol)
        if address is not None:
            reserved = stack.enter_context(reserve_port(f"--{protocol}", address))
            chosen[protocol] = msgspec.structs.replace(address, port=reserved.getsockname()[1])
    return msgspec.structs.replace(settings, **chosen)


def _run_worker(settings: ServiceSettings, limiter_settings: Settings, peers: Peers, tell: Connection) -> None:
    """Serve as one of several, in a process of its own. It ends with the process that started it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal sends it to all; the supervisor decides
    log_to_stderr()

    def watch_parent(service: Service) -> None:
        parent = multiprocessing.parent_process()
        loop = asyncio.get_running_loop()

        def stop() -> None:
            if parent is not None:
                loop.remove_reader(parent.sentinel)
            service.stop_soon()

        if parent is not None:
            loop.add_reader(parent.sentinel, stop)

    try:
        asyncio.run(serve_here(settings, limiter_settings, tell.send, peers, watch_parent))
    except InvalidInputError as error:
        tell.send(str(error))
        sys.exit(2)
