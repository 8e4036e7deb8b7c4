"""A request as the limiter reads it, whatever the framework, and the paths that are exempt."""

from collections.abc import Iterable, Mapping, MutableMapping
from typing import Any, Final, TypeVar

from sluicegate.domain.errors import InvalidInputError, InvalidTypeError
from sluicegate.domain.routing.readings import Reading, is_plain, readings_of

F = TypeVar("F")

_EXEMPT: Final = "__sluicegate_exempt__"


class _Marks:
    """Whether any view is exempt: if none is, nobody has to look."""

    def __init__(self) -> None:
        self.any = False


_marks: Final = _Marks()


def exempt(view: F) -> F:
    """Decorate a view, or a class of views, that no limiter counts, wherever the limiter knows the view.

    It stands below the framework's own decorator, such as `@app.get`.
    """
    setattr(view, _EXEMPT, True)
    _marks.any = True
    return view


def any_exempt() -> bool:
    """Return whether any view is exempt."""
    return _marks.any


def is_exempt(view: object) -> bool:
    """Return whether a view, or the class that it was made of, is exempt."""
    return _marks.any and (
        getattr(view, _EXEMPT, False)
        or getattr(getattr(view, "view_class", None) or getattr(view, "cls", None), _EXEMPT, False)
    )


class IncomingRequest:
    """What a framework knows of a request. Subclasses read the header fields.

    Args:
        method: The method in capitals, or `WEBSOCKET`.
        path: The path, decoded, without the query and the root path.
        route: What rules call the route: its template as the framework writes it, or the path where the framework has none.
        peer: The address at the other end of the connection; None or empty for a Unix socket.
        subject: What functions of the application get.
        parameters: The values in the path by the names of their parameters, where the framework tells them; None: the path is
            cut by the endpoint's template.
        notes: What travels with the request through the framework, such as ASGI's scope: there limiters find what others have
            decided already. None: there is nothing.
        view: The function or class that will answer the request, where the framework tells it.
    """

    __slots__ = ("method", "notes", "parameters", "path", "peer", "route", "subject", "view")

    def __init__(  # noqa: PLR0913, PLR0917 - what a framework knows
        self,
        method: str,
        path: str,
        route: str,
        peer: str | None,
        subject: object,
        parameters: Mapping[str, object] | None = None,
        notes: MutableMapping[str, Any] | None = None,
        view: object = None,
    ) -> None:
        self.method = method
        self.path = path
        self.route = route
        self.peer = peer
        self.subject = subject
        self.parameters = parameters
        self.notes = notes
        self.view = view

    def header_lines(self, name: str) -> list[str]:
        """Return the lines of a header field in their order; its name is in lower case."""
        raise NotImplementedError

    def is_settled(self) -> bool:
        """Return whether somebody sees the answer, and settles what is claimed for the request."""
        return self.notes is not None

    def offer(self, budget: object) -> None:
        """Let the application find what tells the request's cost; nothing here."""

    def root_path(self) -> str:
        """Return the root path, which may stand before the path; empty if there is none."""
        return ""

    def whole_path(self) -> str:
        """Return the path as the server told it, decoded, with the root path if the server left it there."""
        return self.path

    def raw_path(self) -> bytes | None:
        """Return the path as it was sent; None if the server does not tell."""
        return None

    def is_plain(self) -> bool:
        """Return whether all routers read the path alike."""
        return is_plain(self.path, self.raw_path()) and not self.root_path()

    def readings(self) -> list[Reading]:
        """Return the ways in which routers may read the path, the exact one first."""
        return readings_of(self.path, self.raw_path(), self.whole_path(), self.root_path())

    def is_preflight(self) -> bool:
        """Return whether a browser asks with `OPTIONS` if it may send a request: by the two fields of the Fetch standard."""
        return bool(self.header_lines("origin")) and bool(self.header_lines("access-control-request-method"))


class Exemptions:
    """The paths that are not counted.

    Args:
        paths: Exact paths (`/health`), or a path with all that is below it (`/static/*`).

    Raises:
        InvalidInputError: If a path does not begin with a slash or has an asterisk elsewhere.
    """

    def __init__(self, paths: Iterable[str]) -> None:
        if isinstance(paths, str):
            raise InvalidTypeError(f"exempt={paths!r}: expected several paths, not one text")
        exact: set[str] = set()
        below: list[str] = []
        for path in paths:
            base = path.removesuffix("/*")
            if not path.startswith("/") or "*" in base or not base:
                raise InvalidInputError(f"exempt: {path!r}: expected a path such as '/health' or '/static/*'")
            exact.add(base)
            if base != path:
                below.append(f"{base}/")
        self._exact = frozenset(exact)
        self._below = tuple(below)

    def cover(self, path: str) -> bool:
        """Return whether a path is exempt."""
        return path in self._exact or path.startswith(self._below)
