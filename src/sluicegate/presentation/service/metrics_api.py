"""The metrics of a service, those of all its workers together."""

from collections.abc import Awaitable, Callable, Mapping
from typing import Final

from sluicegate.presentation.prometheus_metrics import CONTENT_TYPE, PrometheusMetrics, merge_expositions
from sluicegate.presentation.service.http.web import Call, Endpoint, Reply, json_reply

PEER_PATH: Final = "/v1/metrics"
"""Where one worker asks another."""


class MetricsApi:
    """Answer scrapes.

    Args:
        metrics: Those of this process.
        name: The name of this process among its peers; empty: there are none.
        ask_peers: Returns what the others answer to a path, by name; None: there are none.
    """

    def __init__(
        self,
        metrics: PrometheusMetrics,
        name: str = "",
        ask_peers: Callable[[str], Awaitable[Mapping[str, object]]] | None = None,
    ) -> None:
        self._metrics = metrics
        self._name = name
        self._ask_peers = ask_peers

    def endpoints(self) -> list[Endpoint]:
        """Return the routes for a monitoring system."""
        return [Endpoint("GET", "/metrics", self.scrape)]

    def peer_endpoints(self) -> list[Endpoint]:
        """Return the routes for other workers."""
        return [Endpoint("GET", PEER_PATH, self.tell_peer)]

    async def scrape(self, _: Call) -> Reply:
        """Answer with the metrics of all workers; with several each series says of which it is."""
        text = self._metrics.exposition()
        if self._ask_peers is not None:
            told = await self._ask_peers(PEER_PATH)
            texts = {name: answer for name, answer in told.items() if isinstance(answer, str)}
            text = merge_expositions({self._name: text, **texts})
        return Reply(200, text.encode(), CONTENT_TYPE, (("cache-control", "no-store"),))

    async def tell_peer(self, _: Call) -> Reply:
        """Answer with the metrics of this process."""
        return json_reply(self._metrics.exposition())
