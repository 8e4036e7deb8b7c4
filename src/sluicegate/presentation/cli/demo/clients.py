"""The clients of the demo: real HTTP connections, each client from its own address and with its own behaviour."""

import socket
from collections.abc import Callable
from http.client import HTTPConnection, HTTPException
from threading import Event
from urllib.parse import urlencode

import msgspec

_TIMEOUT_S = 5.0
TOO_MANY_REQUESTS = 429


class Step(msgspec.Struct, frozen=True):
    """One request of a client.

    Args:
        pause_s: Seconds to wait before it.
        method: The method.
        target: The path and query.
        body: The body.
    """

    pause_s: float
    method: str
    target: str
    body: str = ""


class Client(msgspec.Struct, frozen=True):
    """A client of the site.

    Args:
        name: Its name on the screen.
        address: The loopback address that it connects from.
        story: What it does, in a few words.
        steps: Its requests.
    """

    name: str
    address: str
    story: str
    steps: tuple[Step, ...]


class Response(msgspec.Struct, frozen=True):
    """The response to one request.

    Args:
        client: The client's name.
        status: The status code; 0 if there was no response.
        reason: The status in words; if there was no response, the error.
        headers: The headers, in order.
        body: The body.
    """

    client: str
    status: int
    reason: str
    headers: tuple[tuple[str, str], ...] = ()
    body: str = ""

    @property
    def denied(self) -> bool:
        """Whether the limiter denied the request."""
        return self.status == TOO_MANY_REQUESTS

    @property
    def retry_after(self) -> str:
        """The header `Retry-After`; empty if there is none."""
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
    """Return whether this machine has a loopback address. Linux has all of 127.0.0.0/8, other systems often only one."""
    with socket.socket() as probe:
        try:
            probe.bind((address, 0))
        except OSError:
            return False
    return True


def run_client(
    client: Client, port: int, *, forwarded: bool, stop: Event, on_response: Callable[[Response], object]
) -> None:
    """Send a client's requests to 127.0.0.1, one after another, until all are sent or the demo stops.

    Args:
        client: The client.
        port: The site's port.
        forwarded: Whether to connect from 127.0.0.1 and send the client's address in `X-Forwarded-For`.
        stop: The client ends when this is set.
        on_response: Called with each response, and with an error, after which the client ends.
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
            on_response(Response(client.name, response.status, response.reason, tuple(response.getheaders()), body))
    except (OSError, HTTPException) as error:
        on_response(Response(client.name, 0, f"{type(error).__name__}: {error}"))
    finally:
        connection.close()
