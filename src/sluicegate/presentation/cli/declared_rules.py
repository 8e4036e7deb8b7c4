"""The rules that an application declares in code, with the limiters that count them, as a command finds them by importing it.

Rules of decorators are known once the code is imported. Dependencies, throttles and the views of extensions are found by the
application's routes, and the arguments of middlewares by the middlewares that it adds or is wrapped in.
"""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final, TypeAlias

from sluicegate.application.sync_token_bucket_adapter import SyncTokenBucketAdapter
from sluicegate.application.token_bucket_adapter import TokenBucketAdapter
from sluicegate.container import get_rate_limit
from sluicegate.presentation.cli.app_routes import load_app
from sluicegate.presentation.cli.environment import settings_of_environment
from sluicegate.presentation.inline_rules import declared_places
from sluicegate.presentation.web.asgi.face import ASGIFace
from sluicegate.presentation.web.routes.known_routers import class_names
from sluicegate.presentation.web.wsgi.middleware import WSGIRateLimitMiddleware

Limiter: TypeAlias = TokenBucketAdapter | SyncTokenBucketAdapter

_MAX_DEPTH: Final = 100
_STARLETTE: Final = "starlette.applications.Starlette"
_FASTAPI: Final = "fastapi.applications.FastAPI"
_FLASK: Final = "flask.app.Flask"
_DJANGO: Final = frozenset({"django.core.handlers.wsgi.WSGIHandler", "django.core.handlers.asgi.ASGIHandler"})


class DeclaredRules:
    """What an application declares.

    Args:
        limiters: Its limiters, each with rules of its own; the process's one comes first.
        by_request: The places whose rules depend on the request: nobody knows them beforehand.
    """

    def __init__(self, limiters: list[Limiter], by_request: list[str]) -> None:
        self.limiters = limiters
        self.by_request = by_request

    def naming(self, endpoint: str) -> list[Limiter]:
        """Return the limiters that have rules for an endpoint."""
        return [one for one in self.limiters if one.rules.without_switches().find_all(endpoint) is not None]


def declared_by(place: str, rules_path: Path | None) -> DeclaredRules:
    """Import an application and return what it declares.

    Args:
        place: `module:attribute`.
        rules_path: The rules file, in place of that of the environment.

    Raises:
        InvalidInputError: If there is no such application, or importing it fails; or if a rule or a setting is wrong.
    """
    if rules_path is not None:
        os.environ["SLUICEGATE_RULES"] = str(rules_path)
    os.environ["SLUICEGATE_RULES_WATCH"] = "off"
    settings_of_environment()
    app = load_app(place)
    found: list[Limiter] = [get_rate_limit(), *_limiters_of(app, _MAX_DEPTH)]
    by_request: list[str] = []
    for inline, shown in [(one, shown) for one, places in declared_places.items() for shown in places]:
        found.append(inline.limiter)
        if inline.asks_functions:
            by_request.append(inline.shown_at(shown))
        else:
            inline.at(shown)
    limiters = list({id(one.rules): one for one in reversed(found)}.values())[::-1]
    return DeclaredRules(limiters, sorted(set(by_request)))


def _limiters_of(app: object, depth: int, mounted_at: str = "") -> Iterator[Limiter]:
    """Yield the limiters of the middlewares that an application has or is wrapped in, and note what its routes declare."""
    while app is not None and depth:
        depth -= 1
        names = class_names(app)
        if isinstance(app, ASGIFace):
            yield from _awaited(app)
        elif isinstance(app, WSGIRateLimitMiddleware):
            yield app.limiter
        elif _STARLETTE in names:
            yield from _of_starlette(app, depth, mounted_at)
        elif _FLASK in names:
            yield from _of_flask(app)
        elif names & _DJANGO:
            yield from _of_django()
        if _FASTAPI in names:
            from sluicegate.presentation.web.asgi.fastapi import note_routes  # noqa: PLC0415 - the application has it

            note_routes(app, mounted_at)
        app = getattr(app, "app", None) or getattr(app, "__self__", None)


def _of_starlette(app: Any, depth: int, mounted_at: str) -> Iterator[Limiter]:  # noqa: ANN401 - Starlette may not be installed
    # As Starlette builds them: the innermost first, whose keys are the plain ones.
    for added in reversed(app.user_middleware):
        kind: Any = added.cls
        if isinstance(kind, type) and issubclass(kind, ASGIFace):
            arguments: Any = getattr(added, "kwargs", None) or getattr(
                added, "options", {}
            )  # the latter of old versions
            yield from _awaited(kind(app, *getattr(added, "args", ()), **arguments))
    for route in app.routes:
        if hasattr(route, "routes"):
            yield from _limiters_of(getattr(route, "app", None), depth, f"{mounted_at}{getattr(route, 'path', '')}")


def _awaited(middleware: ASGIFace) -> Iterator[Limiter]:
    if isinstance(middleware.limiter, TokenBucketAdapter):
        yield middleware.limiter


def _of_flask(app: Any) -> Iterator[Limiter]:  # noqa: ANN401 - Flask may not be installed
    from sluicegate.presentation.web.wsgi.flask import note_views  # noqa: PLC0415 - the application has it

    extension: Any = app.extensions.get("sluicegate")
    if extension is not None:
        yield extension.limiter
    note_views(app)
    yield from _limiters_of(app.wsgi_app, 1)


def _of_django() -> Iterator[Limiter]:
    from sluicegate.presentation.web.wsgi.django import configured_limiter, known_views  # noqa: PLC0415 - the application has it

    limiter = configured_limiter()
    if limiter is not None:
        yield limiter
    for route, view in known_views():
        for throttle in getattr(getattr(view, "cls", None), "throttle_classes", ()):
            note: Any = getattr(throttle, "note_view", None)
            if note is not None:
                note(route, view)
