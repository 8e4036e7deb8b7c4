"""Which servers a service has: one for each protocol that its settings give an address."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol

from sluicegate.application.token_bucket_adapter import TokenBucketAdapter
from sluicegate.presentation.live.api import LiveApi, absent_endpoints
from sluicegate.presentation.live.page import PageOptions, page_endpoints
from sluicegate.presentation.service.admin.api import AdminApi
from sluicegate.presentation.service.admin.guard import TokenGuard
from sluicegate.presentation.service.admin.peers import Peers
from sluicegate.presentation.service.certificate import Certificate
from sluicegate.presentation.service.descriptor_answer import DescriptorLimiter
from sluicegate.presentation.service.envoy.grpc_server import GrpcServer
from sluicegate.presentation.service.envoy.kuadrant_service import KuadrantService
from sluicegate.presentation.service.envoy.rate_limit_service import RateLimitService
from sluicegate.presentation.service.http.api import endpoints
from sluicegate.presentation.service.http.uvicorn_server import HttpServer
from sluicegate.presentation.service.http.web import build_app
from sluicegate.presentation.service.resp.server import RespServer
from sluicegate.presentation.service.settings import Address, ServiceSettings, bound_address, open_socket
from sluicegate.presentation.web.headers import QuotaHeaders

if TYPE_CHECKING:
    from sluicegate.presentation.prometheus_metrics import PrometheusMetrics
    from sluicegate.presentation.service.metrics_api import MetricsApi


class Server(Protocol):
    """What answers one protocol."""

    async def start(self) -> None:
        """Begin to serve."""
        ...

    async def leave(self) -> None:
        """Tell clients that no more requests should come, and answer those that come."""
        ...

    async def drain(self, grace_s: float) -> None:
        """Accept nothing more, answer what has begun for so many seconds, and close."""
        ...


def build_servers(  # noqa: PLR0913, PLR0917 - the parts of a service
    settings: ServiceSettings,
    limiter: TokenBucketAdapter,
    is_leaving: Callable[[], bool],
    reload: Callable[[], str],
    peers: Peers | None = None,
    metrics: "PrometheusMetrics | None" = None,
    live: LiveApi | None = None,
) -> dict[str, tuple[Server, str]]:
    """Return the servers and where they listen, by protocol.

    Args:
        settings: Where, and how.
        limiter: The limiter.
        is_leaving: Returns whether the service is on its way out.
        reload: Reads the rules again, puts them into force and returns their version.
        peers: The processes that serve beside this one; None: there are none.
        metrics: What is counted; None: nothing is.
        live: Serves the live page; None: there is none.

    Raises:
        InvalidInputError: If it cannot listen where it should, or a setting is invalid.
    """
    reuse_port = settings.workers > 1
    held = None if settings.tls is None else Certificate(settings.tls)

    def certificate_of(protocol: str, address: Address) -> Certificate | None:
        return held if settings.encrypts(protocol, address) else None

    servers: dict[str, tuple[Server, str]] = {}
    descriptors = DescriptorLimiter(limiter, rules_domain=settings.rules_domain, is_independent=settings.independent)
    rate_limit_service = RateLimitService(
        descriptors,
        limits=settings.limits,
        quota=QuotaHeaders(settings.headers),
        denial_body=settings.denial_body,
        storage_errors=settings.storage_errors == "error",
    )
    if settings.grpc is not None:
        kuadrant = KuadrantService(
            limiter,
            descriptors,
            rate_limit_service,
            settings.limits,
            storage_errors=settings.storage_errors == "error",
        )
        server = GrpcServer(rate_limit_service, kuadrant, settings.limits, reuse_port=reuse_port)
        certificate = certificate_of("grpc", settings.grpc)
        servers["grpc"] = server, server.listen("--grpc", settings.grpc, certificate)
    if settings.http is not None:
        app = build_app(endpoints(settings, limiter, rate_limit_service, is_leaving), settings.limits)
        listener = open_socket("--http", settings.http, reuse_port=reuse_port)
        certificate = certificate_of("http", settings.http)
        servers["http"] = HttpServer(app, listener, settings.limits, certificate), bound_address(listener)
    if settings.resp is not None:
        listener = open_socket("--resp", settings.resp, reuse_port=reuse_port)
        server_of_resp = RespServer(
            limiter,
            listener,
            settings.limits,
            password=settings.resp_password,
            storage_errors=settings.storage_errors == "error",
            certificate=certificate_of("resp", settings.resp),
        )
        servers["resp"] = server_of_resp, bound_address(listener)
    if settings.admin is not None:
        admin = AdminApi(limiter, reload, None if peers is None else peers.pass_on)
        watching = absent_endpoints() if live is None else live.endpoints()
        admin_app = build_app(
            [*admin.endpoints(), *watching],
            settings.limits,
            guard=TokenGuard(settings.admin_token),
            open_endpoints=[] if live is None else page_endpoints(PageOptions(needs_token=True, changes=True)),
        )
        listener = open_socket("--admin", settings.admin)
        certificate = certificate_of("admin", settings.admin)
        servers["admin"] = HttpServer(admin_app, listener, settings.limits, certificate), bound_address(listener)
    metrics_api = None if metrics is None else _metrics_api(metrics, peers)
    if settings.metrics is not None and metrics_api is not None:
        listener = open_socket("--metrics", settings.metrics)
        metrics_app = build_app(metrics_api.endpoints(), settings.limits)
        certificate = certificate_of("metrics", settings.metrics)
        servers["metrics"] = HttpServer(metrics_app, listener, settings.limits, certificate), bound_address(listener)
    if peers is not None:
        # Only this user can enter the directory of the socket.
        told = [] if metrics_api is None else metrics_api.peer_endpoints()
        told += [] if live is None else live.peer_endpoints()
        inner_app = build_app([*AdminApi(limiter, reload, tells=False).endpoints(), *told], settings.limits)
        listener = open_socket("a worker's socket", Address(path=peers.own_socket))
        servers["peers"] = HttpServer(inner_app, listener, settings.limits), bound_address(listener)
    return servers


def _metrics_api(metrics: "PrometheusMetrics", peers: Peers | None) -> "MetricsApi":
    from sluicegate.presentation.service.metrics_api import MetricsApi  # noqa: PLC0415 - needs an extra

    return MetricsApi(metrics) if peers is None else MetricsApi(metrics, peers.own_name, peers.ask)
