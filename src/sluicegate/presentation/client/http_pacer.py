"""Which limit an HTTP request counts for, and whether it may be sent again: the same for all libraries that send requests."""

from collections.abc import Callable, Mapping
from typing import Final, Protocol, TypeAlias, TypedDict, TypeVar
from uuid import UUID

from sluicegate.domain.errors import InvalidTypeError
from sluicegate.presentation.client.pacer import Call, Pacer
from sluicegate.presentation.client.steps import Steps
from sluicegate.presentation.inline_rules import RuleOrText

R = TypeVar("R")

_IDEMPOTENT: Final = frozenset({"GET", "HEAD", "OPTIONS", "TRACE", "PUT", "DELETE"})  # RFC 9110, section 9.2.2
_PLACE: Final = "httpx"  # for httpx2 as well: whoever moves to it keeps the buckets


ClientName: TypeAlias = str | int | UUID | None
"""What names whose limit a request counts for."""


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


class PacingOptions(TypedDict, total=False):
    """What the transports have in common."""

    timeout_s: float | None
    """The longest wait in seconds, of all attempts together; None: no end. 60 where it is not given."""
    name: str
    """What keys name in the place of an endpoint; `httpx` where it is not given."""
    retries: int
    """How often a refused request is sent again at most, 2 where it is not given. All requests together are retried for a tenth
    of them, and ten times beforehand."""
    retry_unsafe: bool
    """Whether that holds for methods that are not idempotent as well (POST, PATCH). A request with an `Idempotency-Key` is
    idempotent."""
    max_pause_s: float
    """The longest pause that a server may ask for, in seconds, 300 where it is not given; a refusal that asks for more is
    returned at once."""


class HTTPPacer:
    """Pace requests; see `Pacer`.

    Args:
        rules: See `Pacer`.
        asynchronous: See `Pacer`.
        limiter: See `Pacer`.
        identifier: What is counted separately, as a function of the request, which may be a coroutine function where requests are
            awaited; None: the host and port.
        timeout_s: See `PacingOptions`.
        name: See `PacingOptions`.
        retries: See `PacingOptions`.
        retry_unsafe: See `PacingOptions`.
        max_pause_s: See `PacingOptions`.

    Raises:
        InvalidInputError: If an argument is wrong.
    """

    def __init__(  # noqa: PLR0913 - settings, given by name
        self,
        rules: tuple[RuleOrText, ...],
        *,
        asynchronous: bool,
        limiter: object,
        identifier: Callable[..., object] | None,
        timeout_s: float | None = 60.0,
        name: str = "",
        retries: int = 2,
        retry_unsafe: bool = False,
        max_pause_s: float = 300.0,
    ) -> None:
        if not isinstance(retry_unsafe, bool):
            raise InvalidTypeError(f"retry_unsafe={retry_unsafe!r:.80}: expected True or False")
        self._pacer = Pacer(
            rules,
            asynchronous=asynchronous,
            limiter=limiter,
            identifier=identifier,
            name=name,
            timeout_s=timeout_s,
            retries=retries,
            max_pause_s=max_pause_s,
        )
        self._retry_unsafe = retry_unsafe

    def may_repeat(self, request: HTTPRequest) -> bool:
        """Return whether sending a request twice does what sending it once does, or the caller has allowed it."""
        return self._retry_unsafe or request.method in _IDEMPOTENT or "idempotency-key" in request.headers

    def request_steps(self, request: HTTPRequest, call: Call[R]) -> Steps[R]:
        """Wait for a turn and send a request; see `Pacer.steps`."""
        return self._pacer.steps(_PLACE, call, request.url.netloc.decode("ascii"), (request,), {})
