"""The routes that all applications of the matrix have, and their rules."""

import os
from typing import Any

from sluicegate import RateLimitRule

READINGS = "MATRIX_PATH_READINGS"
"""The variable that sets the option `path_readings`."""

# Name, template in Starlette's words. A literal stands beside a parameter, and one route ends with a slash.
ROUTES = {
    "special": "/items/special",
    "item": "/items/{id}",
    "login": "/login",
    "number": "/numbers/{n:int}",
    "file": "/files/{rest:path}",
    "slash": "/slash/",
}
MOUNTED = {"sub": "/sub/items/{id}"}
BELOW = {"sub": "/items/{id}"}  # what a mount has of it
BASES = {
    "item": "/items/3",
    "special": "/items/special",
    "login": "/login",
    "number": "/numbers/7",
    "file": "/files/a/b",
    "slash": "/slash/",
    "sub": "/sub/items/3",
}


def rules(*, reverse: bool = False, methods: tuple[str, ...] = ("GET",)) -> dict[str, RateLimitRule]:
    """Return a rule of its own for each route, by method; reversed: the parameter's before the literal's."""
    templates = list((ROUTES | MOUNTED).items())
    if reverse:
        templates.reverse()
    return {
        f"{method} {template}": RateLimitRule(1_000_000, 1_000_000, "ip", name=name)
        for name, template in templates
        for method in methods
    }


def options_of() -> dict[str, Any]:
    """Return the middlewares' options: the default readings, or those of the environment, to see the matrix fail."""
    readings = os.environ.get(READINGS)
    return {"path_readings": readings} if readings else {}
