"""The gRPC server: the rate limit service, health and reflection."""

import logging
from collections.abc import Awaitable, Callable
from importlib import import_module
from typing import Any, Final, TypeAlias

import grpc
import grpc.aio
from google.protobuf import descriptor_pb2
from google.protobuf.descriptor_pool import DescriptorPool

from sluicegate.domain.errors import InvalidInputError, InvalidTypeError
from sluicegate.presentation.service.certificate import Certificate
from sluicegate.presentation.service.envoy.kuadrant_service import KuadrantService
from sluicegate.presentation.service.envoy.messages import KUADRANT_SERVICE, POOL, SERVICE
from sluicegate.presentation.service.envoy.rate_limit_service import RateLimitService
from sluicegate.presentation.service.settings import Address, ServiceLimits
from sluicegate.presentation.service.undecided import StorageUnavailableError

# These packages have no types that are complete.
_health: Final[Any] = import_module("grpc_health.v1.health")
_health_pb2: Final[Any] = import_module("grpc_health.v1.health_pb2")
_health_pb2_grpc: Final[Any] = import_module("grpc_health.v1.health_pb2_grpc")
_reflection: Final[Any] = import_module("grpc_reflection.v1alpha.reflection")
_reflection_pb2: Final[Any] = import_module("grpc_reflection.v1alpha.reflection_pb2")

_logger = logging.getLogger("sluicegate")

_MARGIN_S: Final = 0.002  # of the caller's deadline, for the way back, at least
_MARGIN_SHARE: Final = 0.1
_DAY_MS: Final = 24 * 3600 * 1000


_Answer: TypeAlias = Callable[[bytes, float | None], Awaitable[bytes]]
"""Takes a serialized message and the longest that its caller waits, and returns a serialized message."""


class GrpcServer:
    """Serve a rate limit service.

    Args:
        service: Answers checks.
        kuadrant: Answers reservations.
        limits: How much one caller may ask.
        reuse_port: Whether several processes may listen on one port.
    """

    def __init__(
        self,
        service: RateLimitService,
        kuadrant: KuadrantService,
        limits: ServiceLimits,
        *,
        reuse_port: bool = False,
    ) -> None:
        self._server = grpc.aio.server(options=_options(limits, reuse_port=reuse_port))
        self._health: Any = _health.aio.HealthServicer()
        methods: dict[str, dict[str, _Answer]] = {
            SERVICE: {"ShouldRateLimit": service.answer},
            KUADRANT_SERVICE: {
                "CheckRateLimit": kuadrant.check,
                "Report": kuadrant.report,
                "Reserve": kuadrant.reserve,
                "Commit": kuadrant.commit,
            },
        }
        for name, answers in methods.items():
            handlers = {method: _handler(answer) for method, answer in answers.items()}
            self._server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(name, handlers),))
        _health_pb2_grpc.add_HealthServicer_to_server(self._health, self._server)
        names = (*methods, _health.SERVICE_NAME, _reflection.SERVICE_NAME)
        _reflection.enable_server_reflection(names, self._server, pool=_reflected_pool())

    def listen(self, option: str, address: Address, certificate: Certificate | None = None) -> str:
        """Bind an address, and return it, with the port that was bound.

        Args:
            option: The option's name, for the error message.
            address: Where.
            certificate: For TLS; None: in clear.

        Raises:
            InvalidInputError: If that is not possible.
        """
        try:
            if certificate is None:
                port = self._server.add_insecure_port(str(address))
            else:
                port = self._server.add_secure_port(str(address), _credentials(certificate))
        except RuntimeError as error:
            raise InvalidInputError(f"{option}: cannot listen on {address}: {error}") from None
        return str(address if address.path else Address(address.host, port))

    async def start(self) -> None:
        """Begin to serve."""
        await self._server.start()
        for name in ("", SERVICE, KUADRANT_SERVICE):
            await self._health.set(name, _health_pb2.HealthCheckResponse.SERVING)

    async def leave(self) -> None:
        """Report to load balancers that no more requests should come; those that come are answered."""
        await self._health.enter_graceful_shutdown()

    async def drain(self, grace_s: float) -> None:
        """Accept nothing more, answer what has begun for so many seconds, and close."""
        await self._server.stop(grace_s)


def _credentials(certificate: Certificate) -> grpc.ServerCredentials:
    """Return credentials that follow the certificate's files. gRPC accepts TLS 1.2 and 1.3."""
    told = certificate.pem

    def configure() -> grpc.ServerCertificateConfiguration:
        pem = certificate.pem
        return grpc.ssl_server_certificate_configuration([(pem.key, pem.certificate)], pem.client_ca or None)

    def configure_anew() -> Any:  # noqa: ANN401 - None if nothing has changed, which its types do not know
        nonlocal told
        certificate.follow()
        if certificate.pem is told:
            return None
        told = certificate.pem
        return configure()

    return grpc.dynamic_ssl_server_credentials(
        configure(), configure_anew, require_client_authentication=bool(told.client_ca)
    )


def _handler(answer: _Answer) -> Any:  # noqa: ANN401 - generic over bytes
    """Return the handler of a method that takes and returns serialized messages."""

    async def handle(request: bytes, context: Any) -> bytes:  # noqa: ANN401 - the same
        timeout_s = context.time_remaining()
        if timeout_s is not None:
            timeout_s = max(0.0, timeout_s - max(_MARGIN_S, timeout_s * _MARGIN_SHARE))
        try:
            return await answer(request, timeout_s)
        except InvalidTypeError as error:  # the storage has not what the method needs
            await context.abort(grpc.StatusCode.UNIMPLEMENTED, str(error))
        except InvalidInputError as error:
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, str(error))
        except StorageUnavailableError as error:
            await context.abort(grpc.StatusCode.UNAVAILABLE, str(error))
        except Exception:
            _logger.exception("A gRPC call failed")
            await context.abort(
                grpc.StatusCode.INTERNAL, "internal error"
            )  # grpc would tell the client what went wrong
        raise AssertionError  # `abort` raises

    grpc_untyped: Any = grpc  # its types cannot say bytes
    return grpc_untyped.unary_unary_rpc_method_handler(handle)


def _options(limits: ServiceLimits, *, reuse_port: bool) -> list[tuple[str, int]]:
    return [
        ("grpc.so_reuseport", int(reuse_port)),
        ("grpc.max_receive_message_length", limits.max_message_bytes),
        ("grpc.max_metadata_size", 16_384),
        ("grpc.max_concurrent_streams", limits.max_concurrent),
        ("grpc.max_connection_idle_ms", int(limits.idle_seconds * 1000)),
        # Clients connect again once a day, and find servers that have come since.
        ("grpc.max_connection_age_ms", _DAY_MS),
        ("grpc.max_connection_age_grace_ms", 10_000),
        # A peer that is gone without a word is found within two intervals.
        ("grpc.keepalive_time_ms", 60_000),
        ("grpc.keepalive_timeout_ms", 20_000),
        ("grpc.http2.min_recv_ping_interval_without_data_ms", 10_000),
        ("grpc.keepalive_permit_without_calls", 1),
        ("grpc.server_handshake_timeout_ms", 10_000),
    ]


def _reflected_pool() -> DescriptorPool:
    """Return the pool of the messages, with those of the other services in it."""
    for module in (_health_pb2, _reflection_pb2):
        file = descriptor_pb2.FileDescriptorProto()
        module.DESCRIPTOR.CopyToProto(file)
        POOL.Add(file)
    return POOL
