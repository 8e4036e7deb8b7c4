"""A process that serves: builds the limiter and the service, and says on one line what it is."""

import asyncio
import logging
import sys
from importlib.metadata import version

from sluicegate.application.token_bucket_adapter import TokenBucketAdapter
from sluicegate.container import build_rate_limit, read_service_rules, watch_service_rules
from sluicegate.domain.errors import InvalidInputError
from sluicegate.infrastructure.settings import Settings
from sluicegate.presentation.service.service import Service
from sluicegate.presentation.service.settings import ServiceSettings


def serve(settings: ServiceSettings, limiter_settings: Settings) -> int:
    """Serve until a signal ends it, and return the exit status.

    Args:
        settings: The settings of the service.
        limiter_settings: The settings of its limiter.

    Raises:
        InvalidInputError: If a setting or a file is invalid, or it cannot listen where it should.
    """
    logging.basicConfig(stream=sys.stderr, format="%(asctime)s %(levelname)s %(name)s %(message)s")
    logging.getLogger("sluicegate").setLevel(logging.INFO)
    if not (limiter_settings.rules_path or settings.ratelimit_config or settings.resp is not None):
        raise InvalidInputError("no rules: give --rules FILE or --ratelimit-config PATH, or set SLUICEGATE_RULES")
    if settings.grpc is None and settings.http is None and settings.resp is None:
        raise InvalidInputError("nowhere to listen: --grpc, --http and --resp are all off")
    asyncio.run(_serve(settings, limiter_settings))
    return 0


def build_limiter(settings: ServiceSettings, limiter_settings: Settings) -> TokenBucketAdapter:
    """Return the limiter of a service, which follows changes of its files.

    Raises:
        InvalidInputError: If a setting or a file is invalid.
    """
    rules, config = limiter_settings.rules_path, settings.ratelimit_config
    book, warnings = read_service_rules(rules, config)
    limiter = build_rate_limit(limiter_settings, rules=book)
    for warning in warnings:
        limiter.rules.warn(warning)
    if limiter_settings.rules_watch != "off":
        watch_service_rules(limiter, rules, config, notify=limiter_settings.rules_watch == "on")
    return limiter


async def _serve(settings: ServiceSettings, limiter_settings: Settings) -> None:
    limiter = build_limiter(settings, limiter_settings)
    service = Service(settings, limiter)
    await service.start()
    places = " ".join([f"{protocol}={address}" for protocol, address in service.addresses.items()])
    sys.stdout.write(
        f"sluicegate {version('sluicegate')} serves {places}; {describe_storage(limiter_settings)};"
        f" {len(limiter.rules.book)} endpoints, rules version {limiter.rules.version}\n"
    )
    sys.stdout.flush()
    await service.run()


def describe_storage(settings: Settings) -> str:
    """Return where the buckets are, without passwords."""
    scheme, _, rest = settings.storage_url.partition("://")
    if scheme == "memory":
        return "buckets in the memory of this process"
    return f"buckets in {scheme}://{rest.rpartition('@')[2].partition('?')[0]}"
