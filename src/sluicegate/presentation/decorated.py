"""What a decorator is put on: its name, and whether a framework holds it already."""

import gc
import inspect
import sys
from collections.abc import Callable
from functools import partial, update_wrapper, wraps
from types import FunctionType
from typing import Any

from sluicegate.domain.errors import InvalidInputError, InvalidTypeError

_FRAMEWORKS = frozenset(
    {"blacksheep", "bottle", "django", "falcon", "fastapi", "flask", "litestar", "quart", "sanic", "starlette"}
)


def name_of(function: Any) -> str:  # noqa: ANN401 - anything that can be called
    """Return the module and the name of a function, of what a partial calls, or of the class of an object."""
    while isinstance(function, partial):
        function = function.func
    named: Any = function
    if not hasattr(function, "__qualname__"):
        named = function.__class__
    return f"{named.__module__}.{named.__qualname__}"


def dressed_as(function: Callable[..., Any], limited: Callable[..., Any]) -> Callable[..., Any]:
    """Return what replaces a function, with its name and signature; what is bound to an object stays so."""
    if inspect.isfunction(function) or inspect.ismethod(function):
        return wraps(function)(limited)
    # A partial or an object has no name of its own, and is no method of the class in whose body it stands.
    update_wrapper(limited, function, assigned=("__doc__",), updated=())
    limited.__name__ = limited.__qualname__ = name_of(function).rpartition(".")[2]
    return limited


def require_function(function: object) -> None:
    """Refuse what a decorator cannot be put on.

    Raises:
        InvalidTypeError: If it is a class, or cannot be called.
    """
    if inspect.isclass(function):
        raise InvalidTypeError(f"{function.__qualname__}: a class; decorate its methods, or what makes its objects")
    if not callable(function):
        raise InvalidTypeError(f"{function!r:.80}: expected a function")


def require_unregistered(function: object) -> None:
    """Refuse a function that a framework already has as a view: it would go on calling the function without the limit.

    Frameworks do not mark what they register, but they hold it. A function that comes fresh from its definition, or from
    another decorator, is held by few; only where there are more does this look who they are.

    Raises:
        InvalidInputError: If a route of a web framework holds the function.
    """
    if not isinstance(function, FunctionType) or sys.getrefcount(function) <= _FRESH:
        return
    if function.__globals__.get(function.__name__) is function:
        return  # no decorator of its definition: somebody wraps a function that has its name already
    for holder in gc.get_referrers(function):
        if _is_route(holder):
            raise InvalidInputError(
                f"{name_of(function)}: registered as a view already, so that this decorator would have no effect;"
                " put it below the one that registers, next to the function"
            )


def _is_route(holder: object, depth: int = 2) -> bool:
    """Return whether an object belongs to a web framework, or is a dictionary that one of its objects holds."""
    if not isinstance(holder, dict):
        return type(holder).__module__.partition(".")[0] in _FRAMEWORKS
    if depth == 0 or "__builtins__" in holder:  # a module, which is no route, and whose functions all hold it
        return False
    return any(_is_route(owner, depth - 1) for owner in gc.get_referrers(holder))


def _fresh_references() -> int:
    """Return how many references `require_unregistered` counts to a function that nobody else holds."""

    def decorate(function: object) -> int:
        return _count(function)

    return decorate(lambda: None)


def _count(function: object) -> int:
    return sys.getrefcount(function)


_FRESH = _fresh_references()
