"""The request that a proxy asks about. A module of its own, because it is compiled with the class that it extends."""

from sluicegate.presentation.service.endpoints import path_of
from sluicegate.presentation.service.http.web import Call
from sluicegate.presentation.web.incoming_request import IncomingRequest


class ForwardedRequest(IncomingRequest):
    """The request that a proxy asks about.

    Args:
        call: The proxy's question.
        method: The method that the proxy tells.
        target: The path and query that it tells.
    """

    __slots__ = ("_call", "_target")

    def __init__(self, call: Call, method: str, target: str) -> None:
        path = path_of(target)
        super().__init__(method, path, path, call.peer, self)
        self._call = call
        self._target = target

    def raw_path(self) -> bytes | None:
        """Return the path as the client sent it."""
        return self._target.partition("?")[0].encode()

    def header_lines(self, name: str) -> list[str]:
        """Return the lines of a header field of the question."""
        return self._call.header_lines(name)
