"""One WSGI application for each framework and set of options, all with the routes of `routes.py`; see `asgi_apps.py`."""

from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

import bottle
import falcon
import flask
from django.core.wsgi import get_wsgi_application
from pyramid.config import Configurator
from pyramid.response import Response
from werkzeug.middleware.dispatcher import DispatcherMiddleware

from frameworks import django_site
from frameworks.routes import BELOW, MOUNTED, ROUTES, options_of, rules
from sluicegate import FlaskRateLimit, WSGIRateLimitMiddleware


def werkzeug_path(path: str) -> str:
    """Return a template in Werkzeug's, Bottle's and Django's words."""
    return path.replace("{id}", "<id>").replace("{n:int}", "<int:n>").replace("{rest:path}", "<path:rest>")


def flask_app(**options: Any) -> flask.Flask:
    """Flask, with a blueprint."""
    app = flask.Flask("flask_app")
    app.url_map.strict_slashes = options.get("strict_slashes", True)
    app.url_map.merge_slashes = options.get("merge_slashes", True)

    def add(to: Any, name: str, path: str) -> None:
        to.add_url_rule(werkzeug_path(path), name, lambda **_: f"served:{name}")

    for name, path in ROUTES.items():
        add(app, name, path)
    blueprint = flask.Blueprint("sub", "flask_app", url_prefix="/sub")
    add(blueprint, "sub", "/items/{id}")
    app.register_blueprint(blueprint)
    return app


def flask_inside() -> flask.Flask:
    """Flask with the extension."""
    app = flask_app()
    FlaskRateLimit(app, rules={werkzeug_path(endpoint): rule for endpoint, rule in rules().items()})
    return app


def flask_mounted() -> Any:
    """Flask below another application of Werkzeug's dispatcher."""
    inner = flask.Flask("inner")
    inner.add_url_rule("/items/<id>", "sub", lambda **_: "served:sub")
    outer = flask.Flask("outer")
    for name, path in ROUTES.items():
        outer.add_url_rule(werkzeug_path(path), name, lambda name=name, **_: f"served:{name}")
    return DispatcherMiddleware(outer, {"/sub": inner})


def bottle_app(*, mounted: bool = False) -> Any:
    """Bottle, with a mounted application."""
    app = bottle.Bottle()

    def add(to: Any, name: str, path: str) -> None:
        path = path.replace("{id}", "<id>").replace("{n:int}", "<n:int>").replace("{rest:path}", "<rest:path>")
        to.route(path, "GET", lambda **_: f"served:{name}")

    for name, path in ROUTES.items():
        add(app, name, path)
    if mounted:
        inner = bottle.Bottle()
        add(inner, "sub", "/items/{id}")
        app.mount("/sub/", inner)
    else:
        add(app, "sub", MOUNTED["sub"])
    return app


def _serve(name: str, _: Any) -> Response:
    return Response(f"served:{name}")


def _add_views(config: Any, routes: dict[str, str]) -> None:
    for name, path in routes.items():
        config.add_route(name, path.replace("{n:int}", r"{n:\d+}").replace("{rest:path}", "{rest:.*}"))
        config.add_view(partial(_serve, name), route_name=name)


def pyramid_app(*, prefix: str = "") -> Any:
    """Pyramid, whose routes are in their order; with a prefix: one of them is included below it."""
    with Configurator() as config:
        _add_views(config, ROUTES if prefix else ROUTES | MOUNTED)
        if prefix:
            config.include(lambda below: _add_views(below, BELOW), route_prefix=prefix)
        return config.make_wsgi_app()


def pyramid_mounted() -> Any:
    """Pyramid below another one, by Werkzeug's dispatcher."""
    with Configurator() as config:
        _add_views(config, BELOW)
        inner = config.make_wsgi_app()
    return DispatcherMiddleware(pyramid_app(), {"/sub": inner})


class _Resource:
    """Falcon's resource."""

    def __init__(self, name: str) -> None:
        self._name = name

    def on_get(self, _: Any, response: Any, **__: Any) -> None:
        """Answer."""
        response.text = f"served:{self._name}"


def falcon_mounted() -> Any:
    """Falcon below Flask: the inner router, not the outer one, says what an empty parameter is."""
    inner = falcon.App()
    inner.add_route(BELOW["sub"], _Resource("sub"))
    return DispatcherMiddleware(flask_app(), {"/sub": inner})


def falcon_app(**options: Any) -> Any:
    """Falcon."""
    app = falcon.App()
    for name, value in options.items():
        setattr(app.req_options, name, value)
    for name, path in (ROUTES | MOUNTED).items():
        app.add_route(path, _Resource(name))
    return app


def limited(app: Any, *, reverse: bool = False) -> WSGIRateLimitMiddleware:
    """Return an application behind the middleware."""
    return WSGIRateLimitMiddleware(app, rules=rules(reverse=reverse), **options_of())


django_site.set_up()
APPS: dict[str, Callable[..., Iterable[bytes]]] = {
    "flask": limited(flask_app()),
    "flask-loose": limited(flask_app(strict_slashes=False)),
    "flask-unmerged": limited(flask_app(merge_slashes=False)),
    "flask-mounted": limited(flask_mounted()),
    "flask-inside": flask_inside(),
    "bottle": limited(bottle_app()),
    "bottle-mounted": limited(bottle_app(mounted=True)),
    "pyramid": limited(pyramid_app()),
    "pyramid-prefix": limited(pyramid_app(prefix="/sub")),
    "pyramid-mounted": limited(pyramid_mounted()),
    "falcon": limited(falcon_app()),
    "falcon-strip": limited(falcon_app(strip_url_path_trailing_slash=True)),
    "falcon-reverse": limited(falcon_app(), reverse=True),
    "falcon-mounted": limited(falcon_mounted()),
    "django-inside": get_wsgi_application(),
}


def app(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
    """Call the application that the request names."""
    return APPS[environ["HTTP_X_APP"]](environ, start_response)
