"""Whatever a framework serves is counted, with every server, its options and every spelling of a path.

`make test-frameworks` runs it, in an environment that has all of them. Beside the verdict it prints what is counted too much.
"""

import os
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from importlib import import_module
from typing import NamedTuple

import pytest

from frameworks.raw_requests import RawAnswer, ask, spellings
from frameworks.routes import BASES, READINGS
from frameworks.servers import COMMANDS, serving

_THREADS = 4
_EXACT = frozenset(
    {"starlette", "starlette-no-redirects", "starlette-inside", "fastapi", "fastapi-root", "fastapi-root-inside"}
    | {"flask-inside", "django-inside"}
)
_NEED_LIFESPAN = ("sanic", "blacksheep")  # Daphne does not start applications
# A literal's path may be the parameter's in another reading; `x/sub/items/3`, without a slash before it, begins with a segment
# that a dispatcher drops.
_MAY_COUNT_TOO = {"item": {"special", "sub"}, "special": {"item"}, "sub": {"item"}}
_AT_A_ROOT = ("item", "sub")  # what is asked where the server has a root path
_BYPASSED_IF_EXACT = {"litestar", "quart", "falcon", "sanic", "blacksheep"}  # which read paths in ways of their own


class Asked(NamedTuple):
    """A request of the matrix and its answer."""

    app: str
    target: bytes
    answer: RawAnswer


def ask_all(server: str) -> Iterator[Asked]:
    """Ask a server's applications for all spellings of all paths."""
    apps = [
        name
        for name in import_module(f"frameworks.{server.partition(' ')[0]}_apps").APPS
        if not (server.startswith("asgi daphne") and name.startswith(_NEED_LIFESPAN))
    ]
    routes = _AT_A_ROOT if server.endswith("-root") else BASES
    targets = [target for route in routes for target in spellings(BASES[route])]
    with serving(server) as port, ThreadPoolExecutor(_THREADS) as pool:
        jobs = [(app, target) for app in apps for target in dict.fromkeys(targets)]
        for (app, target), answer in zip(jobs, pool.map(lambda job: ask(port, *job), jobs), strict=True):
            yield Asked(app, target, answer)


def uncounted(asked: list[Asked]) -> list[Asked]:
    """Return the requests that a handler served and its route's rule did not count."""
    return [one for one in asked if one.answer.served and one.answer.served not in one.answer.counted]


@pytest.mark.parametrize("server", COMMANDS)
def test_what_is_served_is_counted(server: str) -> None:
    """No spelling is served by a route whose rule did not count it, and known routers are not counted too much either."""
    asked = list(ask_all(server))
    served = [one for one in asked if one.answer.served]
    if not server.endswith("-root"):  # which Falcon and Sanic do not take off the path
        missing = {(one.app, route) for one in asked for route in BASES} - {
            (one.app, one.answer.served) for one in served
        }
        assert missing == set(), "a route was never served"
    assert uncounted(asked) == []
    too_much = [(one, rule) for one in served for rule in one.answer.counted if rule != one.answer.served]
    assert [one for one, _ in too_much if one.app in _EXACT] == []
    assert [one for one, rule in too_much if rule not in _MAY_COUNT_TOO.get(one.answer.served, ())] == []
    print(f"\n{server}: {len(asked)} asked, {len(served)} served, all counted; {len(too_much)} counted too much:")
    counts = Counter((one.app, one.answer.served, rule) for one, rule in too_much)
    for (app, route, rule), count in sorted(counts.items()):
        print(f"  {app}: {count} of {route} under {rule} as well")


def test_the_matrix_can_fail(monkeypatch: pytest.MonkeyPatch) -> None:
    """With paths matched as they are, several frameworks serve what is not counted: the matrix would see it."""
    monkeypatch.setitem(os.environ, READINGS, "exact")
    found = {one.app.partition("-")[0] for one in uncounted(list(ask_all("asgi uvicorn-h11")))}
    assert found >= _BYPASSED_IF_EXACT
