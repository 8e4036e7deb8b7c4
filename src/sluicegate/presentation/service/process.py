"""A process that serves: it builds the limiter and the service, and says on one line what it is."""

import asyncio
import logging
import sys
from collections.abc import Callable
from importlib.metadata import version

from sluicegate.application.token_bucket_adapter import TokenBucketAdapter
from sluicegate.container import build_rate_limit, read_service_rules, watch_service_rules
from sluicegate.domain.errors import InvalidInputError
from sluicegate.infrastructure.event_bus import InlineEventBus
from sluicegate.infrastructure.settings import Settings
from sluicegate.presentation.service.admin.peers import Peers
from sluicegate.presentation.service.certificate import Certificate
from sluicegate.presentation.service.observers import Observers
from sluicegate.presentation.service.service import Service
from sluicegate.presentation.service.settings import ServiceSettings
from sluicegate.runtime.extras import is_installed


def serve(settings: ServiceSettings, limiter_settings: Settings) -> int:
    """Serve until a signal ends it, and return the exit status.

    Args:
        settings: The settings of the service.
        limiter_settings: The settings of its limiter.

    Raises:
        InvalidInputError: If a setting or a file is invalid, or it cannot listen where it should.
    """
    require_sense(settings, limiter_settings)
    read_service_rules(
        limiter_settings.rules_path, settings.ratelimit_config
    )  # a mistake is told once, not by each worker
    log_to_stderr()
    if settings.tls is not None and settings.workers > 1:
        Certificate(settings.tls)  # the same
    if settings.workers > 1:
        from sluicegate.presentation.service.workers import supervise  # noqa: PLC0415 - few need it

        return supervise(settings, limiter_settings)
    asyncio.run(serve_here(settings, limiter_settings, lambda places: say(places, settings, limiter_settings)))
    return 0


def require_sense(settings: ServiceSettings, limiter_settings: Settings) -> None:
    """Check that the settings fit together.

    Raises:
        InvalidInputError: If they do not; the message says what to change.
    """
    if not (limiter_settings.rules_path or settings.ratelimit_config or settings.resp is not None):
        raise InvalidInputError("no rules: give --rules FILE or --ratelimit-config PATH, or set SLUICEGATE_RULES")
    if settings.grpc is None and settings.http is None and settings.resp is None:
        raise InvalidInputError("nowhere to listen: --grpc, --http and --resp are all off")
    if settings.admin is not None and not settings.admin_token:
        raise InvalidInputError("--admin needs --admin-token-file")
    if settings.metrics is not None and not is_installed("prometheus_client"):
        raise InvalidInputError("--metrics needs prometheus_client: pip install 'sluicegate[metrics]'")
    if settings.workers == 1:
        return
    if limiter_settings.storage_url.startswith("memory:") and not settings.separate_memory:
        raise InvalidInputError(
            f"--workers={settings.workers}: with memory:// each worker would have buckets of its own, and let pass as much as"
            " all rules say together; set SLUICEGATE_STORAGE_URL to shm:// or redis://, or give --separate-memory"
        )
    for option, address in (("--grpc", settings.grpc), ("--http", settings.http), ("--resp", settings.resp)):
        if address is not None and address.path:
            raise InvalidInputError(f"{option}={address}: several workers cannot listen on one Unix socket; use a port")


def log_to_stderr() -> None:
    """Write the log lines of the limiter, and warnings of others, to standard error."""
    logging.basicConfig(stream=sys.stderr, format="%(asctime)s %(levelname)s %(name)s %(message)s")
    logging.getLogger("sluicegate").setLevel(logging.INFO)


async def serve_here(
    settings: ServiceSettings,
    limiter_settings: Settings,
    when_ready: Callable[[dict[str, str]], object],
    peers: Peers | None = None,
    when_begun: Callable[[Service], object] | None = None,
) -> None:
    """Serve in this process until a signal ends it.

    Args:
        settings: The settings of the service.
        limiter_settings: The settings of its limiter.
        when_ready: Is told where the service listens, by protocol.
        peers: The processes that serve beside this one; None: there are none.
        when_begun: Gets the service before it runs.

    Raises:
        InvalidInputError: If a setting or a file is invalid, or it cannot listen where it should.
    """
    rules, config = limiter_settings.rules_path, settings.ratelimit_config
    observers = Observers(settings, limiter_settings)
    limiter = build_limiter(settings, limiter_settings, observers.bus)
    observers.watch(limiter, peers)
    service = Service(
        settings,
        limiter,
        lambda: limiter.rules.replace(read_service_rules(rules, config)[0]),
        peers,
        observers.metrics,
        observers.live,
    )
    if when_begun is not None:
        when_begun(service)
    await service.start()
    when_ready(service.addresses)
    await service.run()
    observers.close()


def build_limiter(
    settings: ServiceSettings, limiter_settings: Settings, bus: InlineEventBus | None = None
) -> TokenBucketAdapter:
    """Return the limiter of a service, which follows changes of its files.

    Args:
        settings: The settings of the service.
        limiter_settings: The settings of its limiter.
        bus: Gets the limiter's events; None: there are none.

    Raises:
        InvalidInputError: If a setting or a file is invalid.
    """
    rules, config = limiter_settings.rules_path, settings.ratelimit_config
    book, warnings = read_service_rules(rules, config)
    limiter = build_rate_limit(limiter_settings, rules=book, event_bus=bus)
    for warning in warnings:
        limiter.rules.warn(warning)
    if limiter_settings.rules_watch != "off":
        watch_service_rules(limiter, rules, config, notify=limiter_settings.rules_watch == "on")
    return limiter


def say(places: dict[str, str], settings: ServiceSettings, limiter_settings: Settings) -> None:
    """Write the line that says where the service listens and where its buckets are."""
    workers = settings.workers
    listed = " ".join([f"{protocol}={address}" for protocol, address in places.items() if protocol != "peers"])
    many = f"{workers} workers, " if workers > 1 else ""
    sys.stdout.write(
        f"sluicegate {version('sluicegate')} serves {listed}; {many}{describe_storage(limiter_settings, workers)}"
        f"{describe_tls(settings)}\n"
    )
    sys.stdout.flush()


def describe_tls(settings: ServiceSettings) -> str:
    """Return what is said of TLS; empty if there is none."""
    if settings.tls is None:
        return ""
    excepted = f" except {', '.join(settings.tls_except)}" if settings.tls_except else ""
    clients = ", clients need a certificate" if settings.tls.client_ca else ""
    return f"; TLS on all ports{excepted}{clients}"


def describe_storage(settings: Settings, workers: int = 1) -> str:
    """Return where the buckets are, without passwords."""
    scheme, _, rest = settings.storage_url.partition("://")
    if scheme == "memory":
        return "buckets in the memory of this process" if workers == 1 else "buckets in the memory of each"
    return f"buckets in {scheme}://{rest.rpartition('@')[2].partition('?')[0]}"
