"""`GET /auth`: whether a request may pass, for nginx `auth_request`, Traefik's ForwardAuth and Caddy's `forward_auth`.

The proxy tells the request's method and target in `X-Forwarded-Method` and `X-Forwarded-Uri`. Who sent it is read from a header
that the operator has named, and only if the peer is a proxy that the operator trusts.
"""

from collections.abc import Iterable, Mapping
from typing import Final
from urllib.parse import parse_qsl

from sluicegate.application.token_bucket_adapter import TokenBucketAdapter
from sluicegate.domain.errors import InvalidInputError
from sluicegate.presentation.service.http.forwarded_request import ForwardedRequest
from sluicegate.presentation.service.http.web import Call, Reply, problem
from sluicegate.presentation.service.undecided import StorageUnavailableError
from sluicegate.presentation.web.headers import HeaderStyle
from sluicegate.presentation.web.identity.client_address import ClientAddresses
from sluicegate.presentation.web.request_limiter import RequestLimiter

_DENIED_STATUSES: Final = {"": None, "401": 401, "403": 403, "429": None}


class AuthApi:
    """Answer the questions of proxies.

    Args:
        limiter: Decides them.
        trusted_proxies: Networks or addresses of the proxies, and `unix` for peers on a Unix socket.
        identifier_headers: The header in which they name the client, by scope; an address comes from `X-Forwarded-For`.
        headers: Which header fields tell clients of their quota.
        storage_errors: Whether what the storage did not decide is an error.

    Raises:
        InvalidInputError: If an argument is wrong, or a rule counts a scope that has no header.
    """

    def __init__(
        self,
        limiter: TokenBucketAdapter,
        *,
        trusted_proxies: Iterable[str],
        identifier_headers: Mapping[str, str],
        headers: HeaderStyle,
        storage_errors: bool = False,
    ) -> None:
        proxies = tuple(trusted_proxies)
        self._limiter = limiter
        self._storage_errors = storage_errors
        self._addresses = ClientAddresses(proxies)
        self._requests = RequestLimiter(
            trusted_proxies=proxies,
            identifiers={scope: _HeaderReader(name.lower()) for scope, name in identifier_headers.items()},
            headers=headers,
            path_readings="every",  # the router behind the proxy is not known
        )

    async def decide(self, call: Call) -> Reply:
        """Answer 200, or the denial's status: `?denied=403` in the proxy's URL asks for that one, which nginx needs."""
        if not self._addresses.trusts(call.peer):
            return problem(403, "Not a trusted proxy", "Only proxies that the operator has named may ask.")
        wanted = dict(parse_qsl(call.query.decode("latin-1"))).get("denied", "") if call.query else ""
        if wanted not in _DENIED_STATUSES:
            raise InvalidInputError("denied: expected 401, 403 or 429")
        target = _last(call, "x-forwarded-uri")
        if target is None:
            raise InvalidInputError("expected a header x-forwarded-uri")
        target = target.encode("latin-1").decode(errors="replace")  # proxies pass on what clients do not percent-encode
        method = (_last(call, "x-forwarded-method") or "GET").upper()
        decision = await self._requests.check(self._limiter, ForwardedRequest(call, method, target))
        if decision is None:
            return Reply(200, b"", "")
        if self._storage_errors and decision.degraded is not None:
            raise StorageUnavailableError
        if decision.result.allowed:
            return Reply(200, b"", "", self._requests.headers(decision))
        denial = self._requests.denial(decision)
        status = _DENIED_STATUSES[wanted] or denial.status
        fields = tuple(
            (name, value) for name, value in denial.headers if name not in {"content-type", "content-length"}
        )
        return Reply(status, denial.body, "application/problem+json", fields)


class _HeaderReader:
    """Read the client's name from a header of a request."""

    def __init__(self, name: str) -> None:
        self._name = name

    def __call__(self, request: ForwardedRequest) -> str | None:
        lines = request.header_lines(self._name)
        return lines[-1] if lines else None


def _last(call: Call, name: str) -> str | None:
    lines = call.header_lines(name)
    return lines[-1] if lines else None
