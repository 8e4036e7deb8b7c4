"""From what proxies send to an endpoint of the rules: a method and a path, as they stand in a request line."""

from urllib.parse import unquote, urlsplit

from sluicegate.application.limiter_face import LimiterFace
from sluicegate.domain.errors import InvalidInputError


def match_target(limiter: LimiterFace, method: str, target: str) -> str | None:
    """Return the endpoint of a request; None if no rule is for it.

    Args:
        limiter: Whose rules.
        method: The method; empty: GET.
        target: The path as the client sent it, with or without a query; or a whole URL.

    Raises:
        InvalidInputError: If the target is no path.
    """
    return limiter.match((method or "GET").upper(), path_of(target))


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
