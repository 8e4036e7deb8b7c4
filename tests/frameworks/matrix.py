"""Whatever a framework serves is counted, with every server, its options and every spelling of a path.

`make test-frameworks` runs it, in an environment that has all of them. `conftest.py` tells at the end what was counted too much.
"""

import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from importlib import import_module
from typing import NamedTuple

import pytest

from frameworks.raw_requests import RawAnswer, ask, shake_hands, spellings
from frameworks.routes import BASES, READINGS
from frameworks.servers import COMMANDS, serving
from frameworks.tallies import COUNTED_TOO_MUCH, SERVED

_THREADS = 4
_EXACT = frozenset(
    {"starlette", "starlette-no-redirects", "starlette-inside"}
    | {"fastapi", "fastapi-root", "fastapi-root-inside"}
    | {"litestar", "flask-inside", "django-inside"}
)
_NEED_LIFESPAN = ("sanic", "blacksheep")  # Daphne does not start applications
_DJANGO_ON = ("asgi uvicorn-h11", "asgi uvicorn-root", "asgi hypercorn", "asgi daphne")  # it answers slowly
# A literal's path may be the parameter's in another reading; `x/sub/items/3`, without a slash before it, begins with a segment
# that a dispatcher drops.
_MAY_COUNT_TOO = {"item": {"special", "sub"}, "special": {"item"}, "sub": {"item"}}
_AT_A_ROOT = ("item", "sub")  # what is asked where the server has a root path
_WEBSOCKETS = ("item", "special", "slash", "sub")
_WEBSOCKET_SERVERS = ("asgi uvicorn-h11", "asgi hypercorn", "asgi granian", "asgi daphne")
_BYPASSED_IF_EXACT = {"litestar", "quart", "falcon", "sanic", "blacksheep"}  # which read paths in ways of their own


class Asked(NamedTuple):
    """A request of the matrix and its answer."""

    app: str
    target: bytes
    answer: RawAnswer


def apps_on(server: str) -> list[str]:
    """Return the applications that a server is asked for."""
    apps: list[str] = list(import_module(f"frameworks.{server.partition(' ')[0]}_apps").APPS)
    if server.startswith("asgi daphne"):
        apps = [name for name in apps if not name.startswith(_NEED_LIFESPAN)]
    if server.startswith("asgi") and server not in _DJANGO_ON:
        apps.remove("django-inside")
    return apps


def ask_all(
    server: str, apps: Iterable[str], routes: Iterable[str], way: Callable[[int, str, bytes], RawAnswer]
) -> Iterator[Asked]:
    """Ask applications on a server for all spellings of some routes' paths."""
    targets = [target for route in routes for target in spellings(BASES[route])]
    with serving(server) as port, ThreadPoolExecutor(_THREADS) as pool:
        jobs = [(app, target) for app in apps for target in dict.fromkeys(targets)]
        for (app, target), answer in zip(jobs, pool.map(lambda job: way(port, *job), jobs), strict=True):
            yield Asked(app, target, answer)


def uncounted(asked: list[Asked]) -> list[Asked]:
    """Return the requests that a handler served and its route's rule did not count."""
    return [one for one in asked if one.answer.served and one.answer.served not in one.answer.counted]


def require_counted(asked: list[Asked]) -> None:
    """Hold that what is served is counted, by known routers exactly so, and note the rest for the table at the end."""
    assert uncounted(asked)[:20] == []
    served = [one for one in asked if one.answer.served]
    too_much = [(one, rule) for one in served for rule in one.answer.counted if rule != one.answer.served]
    assert [one for one, _ in too_much if one.app in _EXACT][:20] == []
    assert [one for one, rule in too_much if rule not in _MAY_COUNT_TOO.get(one.answer.served, ())][:20] == []
    SERVED.update(Counter(one.app for one in served))
    COUNTED_TOO_MUCH.update(Counter(one.app for one in {one for one, _ in too_much}))


@pytest.mark.parametrize("server", COMMANDS)
def test_what_is_served_is_counted(server: str) -> None:
    """No spelling is served by a route whose rule did not count it, and known routers are not counted too much either."""
    at_a_root = server.endswith("-root")
    asked = list(ask_all(server, apps_on(server), _AT_A_ROOT if at_a_root else BASES, ask))
    if not at_a_root:  # which Falcon and Sanic do not take off the path
        assert never_served(asked, BASES) == set()
    require_counted(asked)


@pytest.mark.parametrize("server", _WEBSOCKET_SERVERS)
def test_handshakes_that_are_served_are_counted(server: str) -> None:
    """The same for websockets, in the frameworks that have routes for them."""
    apps: tuple[str, ...] = import_module("frameworks.asgi_apps").WEBSOCKETS
    if server.startswith("asgi daphne"):
        apps = tuple(name for name in apps if not name.startswith("quart"))  # Quart answers handshakes there with 500
    asked = list(ask_all(server, apps, _WEBSOCKETS, shake_hands))
    assert never_served(asked, _WEBSOCKETS) == set()
    require_counted(asked)


def never_served(asked: list[Asked], routes: Iterable[str]) -> set[tuple[str, str]]:
    """Return the applications' routes that no request reached: they would prove nothing."""
    return {(one.app, route) for one in asked for route in routes} - {(one.app, one.answer.served) for one in asked}


def test_the_matrix_can_fail(monkeypatch: pytest.MonkeyPatch) -> None:
    """With paths matched as they are, several frameworks serve what is not counted: the matrix would see it."""
    monkeypatch.setitem(os.environ, READINGS, "exact")
    server = "asgi uvicorn-h11"
    found = {one.app.partition("-")[0] for one in uncounted(list(ask_all(server, apps_on(server), BASES, ask)))}
    assert found >= _BYPASSED_IF_EXACT
