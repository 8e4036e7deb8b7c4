"""A service in one process: a limiter, the servers that answer for it, and its end."""

import asyncio
import signal
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from sluicegate.application.token_bucket_adapter import TokenBucketAdapter
from sluicegate.domain.errors import InvalidInputError
from sluicegate.presentation.live.api import LiveApi
from sluicegate.presentation.service.admin.peers import Peers
from sluicegate.presentation.service.servers import Server, build_servers
from sluicegate.presentation.service.settings import ServiceSettings

if TYPE_CHECKING:
    from sluicegate.presentation.prometheus_metrics import PrometheusMetrics

_SIGNALS: Final = (signal.SIGTERM, signal.SIGINT)


class Service:
    """Answer for a limiter over the network.

    Args:
        settings: Where, and how.
        limiter: The limiter, which is closed at the end.
        reload: Reads the rules again, puts them into force and returns their version; None: they cannot be read again.
        peers: The processes that serve beside this one; None: there are none.
        metrics: What is counted; None: nothing is.
        live: Serves the live page; None: there is none.
    """

    def __init__(  # noqa: PLR0913, PLR0917 - the parts of a service
        self,
        settings: ServiceSettings,
        limiter: TokenBucketAdapter,
        reload: Callable[[], str] | None = None,
        peers: Peers | None = None,
        metrics: "PrometheusMetrics | None" = None,
        live: LiveApi | None = None,
    ) -> None:
        self._settings = settings
        self._limiter = limiter
        self._reload = reload or (lambda: limiter.rules.version)
        self._peers = peers
        self._metrics = metrics
        self._live = live
        self._servers: list[Server] = []
        self._stopping = asyncio.Event()
        self.addresses: dict[str, str] = {}
        """Where it listens, by protocol."""

    @property
    def is_leaving(self) -> bool:
        """Whether it is on its way out."""
        return self._stopping.is_set()

    async def start(self) -> None:
        """Listen and serve.

        Raises:
            InvalidInputError: If it cannot listen where it should, or a setting is invalid.
        """
        servers = build_servers(
            self._settings,
            self._limiter,
            lambda: self.is_leaving,
            self._reload,
            self._peers,
            self._metrics,
            self._live,
        )
        if self._peers is not None:
            # Its socket listens already: a change that is made meanwhile waits there, and comes after what is adopted.
            await self._peers.adopt(self._limiter.rules)
        self.addresses = {protocol: address for protocol, (_, address) in servers.items()}
        for server, _ in servers.values():
            await server.start()
            self._servers.append(server)

    async def run(self) -> None:
        """Serve until SIGTERM or SIGINT, then stop. A second SIGINT ends the process at once. SIGHUP reads the rules again."""
        loop = asyncio.get_running_loop()
        for number in _SIGNALS:
            if signal.getsignal(number) is not signal.SIG_IGN:
                loop.add_signal_handler(number, self.stop_soon)
        loop.add_signal_handler(signal.SIGHUP, self._read_again)
        await self._stopping.wait()
        await self.stop()

    async def stop(self) -> None:
        """Leave: tell load balancers, answer on for a while, accept nothing more, and finish what has begun."""
        self._stopping.set()
        await asyncio.gather(*[server.leave() for server in self._servers])
        await asyncio.sleep(self._settings.leave_seconds)
        if self._live is not None:
            self._live.close()
        await asyncio.gather(*[server.drain(self._settings.grace_seconds) for server in self._servers])
        await self._limiter.aclose()

    def _read_again(self) -> None:
        try:
            self._reload()
        except InvalidInputError as error:
            self._limiter.rules.refuse(error)

    def stop_soon(self) -> None:
        """Let `run` come to its end."""
        self._stopping.set()
        asyncio.get_running_loop().remove_signal_handler(signal.SIGINT)  # does nothing where there is none
