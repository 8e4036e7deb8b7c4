"""A request as the limiter reads it, whatever the framework, and the paths that are exempt."""

from collections.abc import Iterable, Mapping

from sluicegate.domain.errors import InvalidInputError, InvalidTypeError
from sluicegate.domain.routing.readings import Reading, is_plain, readings_of


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
    """

    __slots__ = ("method", "parameters", "path", "peer", "route", "subject")

    def __init__(  # noqa: PLR0913, PLR0917 - what a framework knows
        self,
        method: str,
        path: str,
        route: str,
        peer: str | None,
        subject: object,
        parameters: Mapping[str, object] | None = None,
    ) -> None:
        self.method = method
        self.path = path
        self.route = route
        self.peer = peer
        self.subject = subject
        self.parameters = parameters

    def header_lines(self, name: str) -> list[str]:
        """Return the lines of a header field in their order; its name is in lower case."""
        raise NotImplementedError

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
