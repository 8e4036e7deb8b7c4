"""Find rules that name no route of an application whose framework knows its routes by name."""

from collections.abc import Iterable, Iterator, Mapping
from difflib import get_close_matches

from sluicegate.domain.routing.template import parse_endpoint


def unknown_routes(endpoints: Iterable[str], routes: Mapping[str, frozenset[str] | None]) -> Iterator[str]:
    """Yield a sentence about each endpoint that names no route.

    Args:
        endpoints: The endpoints of the rules. Names that are no method and path are not the framework's.
        routes: The routes as the framework writes them, after a slash, and their methods; None: any.
    """
    for endpoint in endpoints:
        template = parse_endpoint(endpoint)
        if template is None:
            continue
        path = endpoint if endpoint.startswith("/") else endpoint.partition(" ")[2]
        if path not in routes:
            nearest = get_close_matches(path, routes, n=1)
            hint = f"; the nearest is {nearest[0]!r}" if nearest else ""
            yield f"The rule for {endpoint!r} is for no route of the application{hint}."
            continue
        methods = routes[path]
        if methods is not None and template.method not in {"*", *methods}:
            yield f"The rule for {endpoint!r} is for no method of its route, which has {', '.join(sorted(methods))}."
