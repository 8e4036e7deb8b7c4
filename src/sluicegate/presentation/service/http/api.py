"""The routes that callers over HTTP may ask."""

from collections.abc import Callable
from typing import Final

from sluicegate.application.token_bucket_adapter import TokenBucketAdapter
from sluicegate.presentation.service.envoy.rate_limit_service import RateLimitService
from sluicegate.presentation.service.http.auth_api import AuthApi
from sluicegate.presentation.service.http.budget_api import BudgetApi
from sluicegate.presentation.service.http.check_api import CheckApi
from sluicegate.presentation.service.http.openapi import openapi_document
from sluicegate.presentation.service.http.web import JSON, Call, Endpoint, Reply, json_reply
from sluicegate.presentation.service.settings import ServiceSettings
from sluicegate.presentation.web.headers import QuotaHeaders

_TEXT: Final = "text/plain; charset=utf-8"
_UNCACHED: Final = (("cache-control", "no-store"),)


class Health:
    """Say whether the service lives, and whether requests should come.

    Args:
        limiter: Its storage is asked.
        is_leaving: Returns whether the service is on its way out.
    """

    def __init__(self, limiter: TokenBucketAdapter, is_leaving: Callable[[], bool]) -> None:
        self._limiter = limiter
        self._is_leaving = is_leaving

    async def live(self, _: Call) -> Reply:
        """Answer 200 as long as the process runs, whatever the storage does."""
        return Reply(200, b"ok\n", _TEXT, _UNCACHED)

    async def ready(self, _: Call) -> Reply:
        """Answer 200 if the storage answers and the service does not leave, else 503."""
        if self._is_leaving():
            return Reply(503, b"leaving\n", _TEXT, _UNCACHED)
        fault = await self._limiter.storage_fault()
        if fault is not None:
            return Reply(503, f"storage: {fault}\n".encode(), _TEXT, _UNCACHED)
        return Reply(200, b"ready\n", _TEXT, _UNCACHED)


def endpoints(
    settings: ServiceSettings,
    limiter: TokenBucketAdapter,
    service: RateLimitService,
    is_leaving: Callable[[], bool],
) -> list[Endpoint]:
    """Return the routes of a service.

    Args:
        settings: Its settings.
        limiter: Its limiter.
        service: Answers requests of the Envoy protocol in JSON.
        is_leaving: Returns whether it is on its way out.

    Raises:
        InvalidInputError: If a setting is invalid.
    """
    storage_errors = settings.storage_errors == "error"
    check_api = CheckApi(limiter, QuotaHeaders(settings.headers), storage_errors=storage_errors)
    health = Health(limiter, is_leaving)
    routes = [
        Endpoint("POST", "/v1/check", check_api.check),
        *BudgetApi(limiter, check_api).endpoints(),
        Endpoint("POST", "/json", _EnvoyJson(service).answer),
        Endpoint("GET", "/healthz", health.live),
        Endpoint("GET", "/readyz", health.ready),
        Endpoint("GET", "/openapi.json", _openapi),
    ]
    if settings.trusted_proxies:
        auth_api = AuthApi(
            limiter,
            trusted_proxies=settings.trusted_proxies,
            identifier_headers=settings.identifier_headers,
            headers=settings.headers,
            storage_errors=storage_errors,
        )
        routes.append(Endpoint("GET", "/auth", auth_api.decide))
    return routes


class _EnvoyJson:
    """Answer requests of the Envoy protocol in proto3's JSON."""

    def __init__(self, service: RateLimitService) -> None:
        self._service = service

    async def answer(self, call: Call) -> Reply:
        allowed, text = await self._service.answer_json(call.body)
        return Reply(200 if allowed else 429, text.encode(), JSON, _UNCACHED)


async def _openapi(_: Call) -> Reply:
    return json_reply(openapi_document())
