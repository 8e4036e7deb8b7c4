"""Which limit an HTTP request counts for, and whether it may be sent again: the same for all libraries that send requests."""

from collections.abc import Callable, Mapping
from typing import Any, Final, Protocol, TypeVar

from sluicegate.domain.errors import InvalidTypeError
from sluicegate.presentation.client.pacer import Call, Pacer
from sluicegate.presentation.client.steps import Steps
from sluicegate.presentation.web.identifiers import identifier_text

R = TypeVar("R")

_IDEMPOTENT: Final = frozenset({"GET", "HEAD", "OPTIONS", "TRACE", "PUT", "DELETE"})  # RFC 9110, section 9.2.2
_PLACE: Final = "httpx"  # for httpx2 as well: whoever moves to it keeps the buckets


class _URL(Protocol):
    @property
    def netloc(self) -> bytes: ...


class HTTPRequest(Protocol):
    """A request of httpx or httpx2."""

    @property
    def method(self) -> str:
        """The method, in capitals."""
        ...

    @property
    def url(self) -> _URL:
        """The URL."""
        ...

    @property
    def headers(self) -> Mapping[str, str]:
        """The fields; their names in any case."""
        ...


class HTTPPacer:
    """Pace requests; see `Pacer`.

    Args:
        rules: See `Pacer`.
        identifier: What is counted separately, as a function of the request; None: the host and port.
        retry_unsafe: Whether requests that are not idempotent may be sent again as well.
        options: The other options of a `Pacer`.

    Raises:
        InvalidInputError: If an argument is wrong.
    """

    def __init__(
        self,
        rules: tuple[Any, ...],
        *,
        identifier: Callable[..., str] | None,
        retry_unsafe: bool,
        **options: Any,  # noqa: ANN401 - those of `Pacer`
    ) -> None:
        if identifier is not None and not callable(identifier):
            raise InvalidTypeError(f"identifier={identifier!r:.80}: expected a function of the request")
        if not isinstance(retry_unsafe, bool):
            raise InvalidTypeError(f"retry_unsafe={retry_unsafe!r:.80}: expected True or False")
        self._pacer = Pacer(rules, **options)
        self._identifier = identifier or _authority
        self._retry_unsafe = retry_unsafe

    def may_repeat(self, request: HTTPRequest) -> bool:
        """Return whether sending a request twice does what sending it once does, or the caller has allowed it."""
        return self._retry_unsafe or request.method in _IDEMPOTENT or "idempotency-key" in request.headers

    def request_steps(self, request: HTTPRequest, call: Call[R]) -> Steps[R]:
        """Wait for a turn and send a request; see `Pacer.steps`."""
        identifier = identifier_text(self._identifier(request)) or _authority(request)
        return self._pacer.steps(_PLACE, identifier, call)


def _authority(request: HTTPRequest) -> str:
    return request.url.netloc.decode("ascii")
