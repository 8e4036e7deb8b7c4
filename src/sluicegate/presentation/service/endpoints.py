"""From what proxies send to an endpoint of the rules: a method and a path, as they stand in a request line."""

from urllib.parse import unquote, urlsplit

from msgspec import UNSET, UnsetType

from sluicegate.application.rules.rules_snapshot import RulesSnapshot
from sluicegate.domain.errors import InvalidInputError


def match_target(rules: RulesSnapshot, method: str, target: str) -> str | None:
    """Return the endpoint of a request; None if no rule is for it.

    Args:
        rules: The rules.
        method: The method; empty: GET.
        target: The path as the client sent it, with or without a query; or a whole URL.

    Raises:
        InvalidInputError: If the target is no path.
    """
    return rules.match((method or "GET").upper(), path_of(target))


def named_endpoint(rules: RulesSnapshot, endpoint: str | UnsetType, path: str | UnsetType, method: str) -> str:
    """Return the endpoint that a caller means, by its name or by a path.

    Args:
        rules: The rules.
        endpoint: Its name.
        path: A path in its place.
        method: The method that goes with the path.

    Raises:
        InvalidInputError: If both are given, or none.
    """
    if endpoint is not UNSET:
        if path is not UNSET:
            raise InvalidInputError("body: expected one of endpoint and path")
        return endpoint
    if path is UNSET:
        raise InvalidInputError("body: expected the field endpoint or path")
    return match_target(rules, method, path) or f"{method} {path.partition('?')[0]}"


def path_of(target: str) -> str:
    """Return the decoded path of a request's target.

    Raises:
        InvalidInputError: If it has none.
    """
    path = target.partition("?")[0].partition("#")[0]
    if not path.startswith("/"):
        try:
            path = urlsplit(target).path or "/"
        except ValueError:
            path = ""
    if not path.startswith("/"):
        raise InvalidInputError(f"path={target!r:.80}: expected a path that begins with /")
    return unquote(path) if "%" in path else path
