"""The demonstration's clients: real HTTP connections from addresses of their own, each with its manners."""

import socket
from collections.abc import Callable
from http.client import HTTPConnection, HTTPException
from threading import Event
from urllib.parse import urlencode

import msgspec

_TIMEOUT_S = 5.0
TOO_MANY_REQUESTS = 429


class Step(msgspec.Struct, frozen=True):
    """One request.

    Args:
        pause_s: How long to wait before it.
        method: Its method.
        target: Its path and query.
        body: Its body.
    """

    pause_s: float
    method: str
    target: str
    body: str = ""


class Client(msgspec.Struct, frozen=True):
    """Somebody who uses the site.

    Args:
        name: What to call it.
        address: The loopback address from which it comes.
        story: What it does, in a few words.
        steps: Its requests.
    """

    name: str
    address: str
    story: str
    steps: tuple[Step, ...]


class Answered(msgspec.Struct, frozen=True):
    """What a client got.

    Args:
        client: Its name.
        status: The status code; 0 if there was no answer.
        reason: The status in words; without an answer, what went wrong.
        headers: The headers in their order.
        body: The body.
    """

    client: str
    status: int
    reason: str
    headers: tuple[tuple[str, str], ...] = ()
    body: str = ""

    @property
    def denied(self) -> bool:
        """Whether the limiter refused it."""
        return self.status == TOO_MANY_REQUESTS

    @property
    def retry_after(self) -> str:
        """The header `Retry-After`, or nothing."""
        return next((value for name, value in self.headers if name.lower() == "retry-after"), "")


def _articles(pauses_s: list[float]) -> tuple[Step, ...]:
    return tuple(Step(pause_s, "GET", f"/articles/{page}") for page, pause_s in enumerate(pauses_s, start=1))


_GUESSES = ("123456", "password", "qwerty", "letmein", "dragon", "monkey", "sunshine", "princess")

CLIENTS = (
    Client("reader", "127.0.0.2", "reads a page now and then", _articles([0.6] * 12)),
    Client("burst", "127.0.0.3", "loads 20 pages at once, twice", _articles([0.5, *[0.0] * 19, 3.5, *[0.0] * 19])),
    Client(
        "guesser",
        "127.0.0.4",
        "tries password after password",
        tuple(
            Step(0.3, "POST", "/login", urlencode({"user": "admin", "password": f"{guess}{turn or ''}"}))
            for turn in range(3)
            for guess in _GUESSES
        ),
    ),
    Client("scraper", "127.0.0.5", "takes every page it can get", _articles([0.06] * 120)),
)


def has_address(address: str) -> bool:
    """Return whether connections can come from a loopback address: on Linux from all of 127.0.0.0/8, elsewhere often not."""
    with socket.socket() as probe:
        try:
            probe.bind((address, 0))
        except OSError:
            return False
    return True


def run_client(
    client: Client, port: int, *, forwarded: bool, stop: Event, on_answer: Callable[[Answered], object]
) -> None:
    """Send a client's requests to 127.0.0.1, one after another, until they are sent or the demonstration stops.

    Args:
        client: Who.
        port: Where the site listens.
        forwarded: Whether to come from 127.0.0.1 and name the address in `X-Forwarded-For`.
        stop: When set, the client leaves.
        on_answer: Is told of each answer, and of a failure, after which the client leaves.
    """
    source = None if forwarded else (client.address, 0)
    connection = HTTPConnection("127.0.0.1", port, timeout=_TIMEOUT_S, source_address=source)
    headers = {"X-Forwarded-For": client.address} if forwarded else {}
    try:
        for step in client.steps:
            if stop.wait(step.pause_s):
                return
            connection.request(step.method, step.target, step.body or None, headers)
            response = connection.getresponse()
            body = response.read().decode("utf-8", "replace")
            on_answer(Answered(client.name, response.status, response.reason, tuple(response.getheaders()), body))
    except (OSError, HTTPException) as error:
        on_answer(Answered(client.name, 0, f"{type(error).__name__}: {error}"))
    finally:
        connection.close()
