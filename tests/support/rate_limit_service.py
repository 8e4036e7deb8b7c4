"""A service in the test's event loop, and an independent client of the Envoy protocol (`xds-protos`)."""

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any, Self

import grpc
import grpc.aio
from envoy.extensions.common.ratelimit.v3 import ratelimit_pb2
from envoy.service.ratelimit.v3 import rls_pb2, rls_pb2_grpc

from sluicegate import RateLimitRule
from sluicegate.infrastructure.ratelimit_config.reader import parse_configs
from sluicegate.infrastructure.rules_file.reader import parse_rules
from sluicegate.presentation.service.service import Service
from sluicegate.presentation.service.settings import Address, ServiceSettings
from support.world import World

ANYWHERE = Address("127.0.0.1", 0)
OK, OVER = 1, 2


class ServiceWorld(World):
    """A limiter with descriptors, a clock in the test's hands, and a service that answers for it.

    Args:
        config: The text of a configuration of `envoyproxy/ratelimit`; empty: none.
        rules: The text of a rules file; empty: none.
        storage: See `World`.
        service: Settings of the service.
        **settings: See `World`.
    """

    def __init__(
        self, config: str = "", *, rules: str = "", storage: Any = None, service: Any = None, **settings: Any
    ) -> None:
        book: Any = parse_rules(rules) if rules else None
        if config:
            book, self.warnings = parse_configs([("config.yaml", config)], book)
        super().__init__(book or {"GET /a": RateLimitRule.per_minute(1)}, storage=storage, **settings)
        chosen = {"grpc": ANYWHERE, "leave_seconds": 0.0, "grace_seconds": 2.0, **(service or {})}
        self.service = Service(ServiceSettings(**chosen), self.limiter)


@asynccontextmanager
async def running(world: ServiceWorld) -> AsyncIterator["RateLimitClient"]:
    """Run a world's service, and connect a client to it."""
    await world.service.start()
    try:
        async with RateLimitClient(world.service.addresses["grpc"]) as client:
            yield client
    finally:
        await world.service.stop()


class RateLimitClient:
    """Ask a service over gRPC.

    Args:
        address: Where it listens.
        credentials: For TLS; None: in clear.
    """

    def __init__(self, address: str, credentials: grpc.ChannelCredentials | None = None) -> None:
        self.channel = (
            grpc.aio.insecure_channel(address) if credentials is None else grpc.aio.secure_channel(address, credentials)
        )
        self._stub = rls_pb2_grpc.RateLimitServiceStub(self.channel)

    async def ask(self, domain: str, *descriptors: Any, hits: int = 0, timeout_s: float = 5) -> Any:
        """Ask about some descriptors, each a mapping of entries or a whole message."""
        messages = [descriptor(one) if isinstance(one, Mapping) else one for one in descriptors]
        request = rls_pb2.RateLimitRequest(domain=domain, descriptors=messages, hits_addend=hits)
        return await self._stub.ShouldRateLimit(request, timeout=timeout_s)

    async def codes(self, times: int, domain: str, *descriptors: Any, hits: int = 0) -> list[int]:
        """Return the overall codes of some equal requests."""
        return [(await self.ask(domain, *descriptors, hits=hits)).overall_code for _ in range(times)]

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.channel.close()


def descriptor(
    entries: Mapping[str, str] | Sequence[tuple[str, str]],
    *,
    hits: int | None = None,
    limit: tuple[int, int] | None = None,
) -> Any:
    """Return a descriptor.

    Args:
        entries: Its keys and values.
        hits: Its addend; None: none.
        limit: Requests per unit, and the unit's number; None: no override.
    """
    pairs = entries.items() if isinstance(entries, Mapping) else entries
    message = ratelimit_pb2.RateLimitDescriptor(
        entries=[ratelimit_pb2.RateLimitDescriptor.Entry(key=key, value=value) for key, value in pairs]
    )
    if hits is not None:
        message.hits_addend.value = hits
    if limit is not None:
        message.limit.requests_per_unit, message.limit.unit = limit
    return message
