"""From what a request carries to the identifier that a check needs: what the faces of all frameworks share."""

from collections.abc import Iterable, Mapping
from functools import lru_cache

from sluicegate.domain.arguments import Identifier
from sluicegate.domain.errors import InvalidInputError, InvalidTypeError
from sluicegate.domain.routing.template import cut, parse_endpoint
from sluicegate.domain.rule import RateLimitScope
from sluicegate.presentation.web.client_address import anonymous_at, identifier_text, joined, verified_user

EVERYBODY = "*"
"""The identifier where a rule counts everybody together; it is part of no key."""

BY_ADDRESS = ("ip",)
"""The scopes of an endpoint whose requests are counted by their address alone."""

_KNOWN_SCOPES = frozenset(RateLimitScope)
_PROVIDER = "provider"


def needed_names(scopes: Iterable[str]) -> tuple[str, ...]:
    """Return the scopes that an application's functions have to name somebody for."""
    names = [RateLimitScope.USER if scope == RateLimitScope.USER_PROVIDER else scope for scope in scopes]
    return tuple(dict.fromkeys(name for name in names if name != RateLimitScope.GLOBAL))


def identify(
    scopes: tuple[str, ...], address: str | None, named: Mapping[str, object], provider: str = ""
) -> Identifier | None:
    """Return who is asking, for the rules of an endpoint.

    Args:
        scopes: Whom the rules count.
        address: The client's address, as `ClientAddresses` has it.
        named: Whom the application named, by scope. Where it named nobody, the address stands in: not being signed in is no
            way round a rule.
        provider: What `user_provider` counts beside the user.

    Returns:
        One text where the rules count one thing, else one for each scope; None if there is neither name nor address.
    """
    found: dict[str, str] = {}
    for scope in scopes:
        if scope == RateLimitScope.GLOBAL:
            found[scope] = EVERYBODY
            continue
        name = identifier_text(named.get("user" if scope == RateLimitScope.USER_PROVIDER else scope))
        if scope == RateLimitScope.IP:
            name = name or address
        elif name is not None:
            name = verified_user(name)
        elif address is not None:
            name = anonymous_at(address)
        if name is None:
            return None
        if scope == RateLimitScope.USER_PROVIDER:
            name = identifier_text(joined(name, provider)) or name
        found[scope] = name
    return next(iter(found.values())) if len(found) == 1 else found


def provider_of(endpoint: str, path: str) -> str:
    """Return what a path has for the parameter `{provider}` of its template; empty where there is no such segment.

    Args:
        endpoint: The template's endpoint.
        path: A path that fits it.
    """
    place = _segment_of_provider(endpoint)
    if place is None:
        return ""
    segments = path.split("/")
    return segments[place] if place < len(segments) else ""


def require_names(scopes: Iterable[str], given: Iterable[str]) -> None:
    """Raise the error that names a scope of a rule for which no function of the application tells who is asking.

    Raises:
        InvalidInputError: If there is such a scope.
    """
    missing = sorted(set(scopes) - _KNOWN_SCOPES - set(given))
    if missing:
        raise InvalidInputError(
            f"identifiers: has no function for the scope {missing[0]!r}, which a rule counts; expected"
            f" identifiers={{{missing[0]!r}: …}}"
        )


class Exemptions:
    """Which paths are not counted.

    Args:
        paths: Paths as they are (`/health`), or with all that is below them (`/static/*`).

    Raises:
        InvalidInputError: If a path does not begin with a slash or has an asterisk elsewhere.
    """

    def __init__(self, paths: Iterable[str]) -> None:
        if isinstance(paths, str):
            raise InvalidTypeError(f"exempt={paths!r}: expected several paths, not one text")
        exact: set[str] = set()
        below: list[str] = []
        for path in paths:
            base = path.removesuffix("/*")
            if not path.startswith("/") or "*" in base or not base:
                raise InvalidInputError(f"exempt: {path!r}: expected a path such as '/health' or '/static/*'")
            exact.add(base)
            if base != path:
                below.append(f"{base}/")
        self._exact = frozenset(exact)
        self._below = tuple(below)

    def __bool__(self) -> bool:
        return bool(self._exact)

    def __contains__(self, path: str) -> bool:
        return path in self._exact or path.startswith(self._below)


@lru_cache(maxsize=1024)
def _segment_of_provider(endpoint: str) -> int | None:
    template = parse_endpoint(endpoint)
    path = endpoint.partition(" ")[2] or endpoint
    if template is None:
        return None
    for place, (written, tokens) in enumerate(zip(path.split("/"), cut(template.tokens), strict=True)):
        if any(not isinstance(token, str) and token.converter == "path" for token in tokens):
            return None
        if written.strip("{}").partition(":")[0] == _PROVIDER and len(tokens) == 1 and not isinstance(tokens[0], str):
            return place
    return None
