"""What users call the places in a FastAPI application where requests are limited: method and template."""

from typing import Any, cast

from starlette.routing import Mount

from sluicegate.presentation.web.asgi.messages import Scope


def place_of(scope: Scope) -> str:
    """Return the method and the whole path template of the route that takes a request, the templates of mounts included."""
    # Of an included router the route knows only its own part of the path; FastAPI keeps the whole beside it.
    own = cast("dict[str, object]", scope.get("fastapi") or {})
    route = own.get("effective_route_context") or scope.get("route")
    method = scope.get("method", "WEBSOCKET")
    # The template, never the concrete path: else each value of a parameter would have a bucket of its own.
    template = getattr(route, "path_format", None) or getattr(scope.get("endpoint"), "__qualname__", "")
    return f"{'GET' if method == 'HEAD' else method} {_mounted_at(scope)}{template}"


def _mounted_at(scope: Scope) -> str:
    """Return the templates of the mounts that lead to the application which takes a request; empty if it is the outermost."""
    root: str = scope.get("root_path") or ""
    outer: str = scope.get("app_root_path", root) or ""
    routes: Any = getattr(scope.get("router"), "routes", None)
    rest = root.removeprefix(outer)
    template = ""
    while rest and routes:
        for mount in routes:
            path, regex = getattr(mount, "path", None), getattr(mount, "path_regex", None)
            if not isinstance(mount, Mount) or regex is None:
                continue
            found = regex.match(f"{rest}/")
            if found is not None:
                matched = f"{rest}/"[: found.start("path") - 1] if "path" in regex.groupindex else rest
                template, rest, routes = f"{template}{path}", rest[len(matched) :], mount.routes
                break
        else:
            break
    return template
