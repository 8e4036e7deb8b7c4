"""Requests as bytes over a socket, so that no client normalises a path, and the ways to spell one."""

import socket
from collections.abc import Iterator
from typing import NamedTuple

_TIMEOUT_S = 20
END_OF_FIELDS = b"end-of-fields"
_HANDSHAKE = b"\r\n".join(
    (
        b"Connection: Upgrade",
        b"Upgrade: websocket",
        b"Sec-WebSocket-Version: 13",
        b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
    )
)


class RawAnswer(NamedTuple):
    """What came back.

    Args:
        status: The status; 0 if the server closed the connection.
        served: The name of the route whose handler ran; empty if none did.
        counted: The names of the rules that counted the request.
    """

    status: int
    served: str
    counted: frozenset[str]


def ask(port: int, app: str, target: bytes) -> RawAnswer:
    """Send a GET for a target to an application on a port of this machine."""
    received = b"".join(_exchange(port, target, b"X-App: %b\r\nConnection: close" % app.encode()))
    fields, _, body = received.partition(b"\r\n\r\n")
    served = body.partition(b"served:")[2].split(b"\r\n")[0].decode() if b"served:" in body else ""
    return _read(fields, served)


def shake_hands(port: int, app: str, target: bytes) -> RawAnswer:
    """Ask for a websocket. Whoever accepts it sends the header fields of the acceptance as a text: see `asgi_apps.py`."""
    received = b""
    for part in _exchange(port, target, b"X-App: %b\r\n%b" % (app.encode(), _HANDSHAKE)):
        received += part
        if END_OF_FIELDS in received or (b"\r\n\r\n" in received and b" 101 " not in received[:20]):
            break
    return _read(received, received.partition(b"x-served:")[2].split(b"\r\n")[0].strip().decode())


def _exchange(port: int, target: bytes, fields: bytes) -> Iterator[bytes]:
    """Yield what a server sends, until it closes the connection."""
    with socket.create_connection(("127.0.0.1", port), timeout=_TIMEOUT_S) as connection:
        try:
            connection.sendall(b"GET %b HTTP/1.1\r\nHost: a.example\r\n%b\r\n\r\n" % (target, fields))
            while part := connection.recv(65536):
                yield part
        except ConnectionError:
            pass


def _read(fields: bytes, served: str) -> RawAnswer:
    lines = fields.split(b"\r\n")
    status = int(lines[0].split(b" ")[1]) if lines[0].startswith(b"HTTP/") else 0
    policies = b", ".join([line.partition(b":")[2] for line in lines if line.lower().startswith(b"ratelimit-policy:")])
    counted = frozenset(part.split(b'"')[1].decode() for part in policies.split(b",") if b'"' in part)
    return RawAnswer(status, served, counted)


def spellings(path: str) -> Iterator[bytes]:
    """Yield ways to spell a path, that some router may read like it."""
    plain = path.encode()
    first, _, last = plain.rpartition(b"/")
    yield from (plain, plain + b"/", plain + b"//", plain.rstrip(b"/") or b"/", b"/" + plain, b"//" + plain)
    yield from (b"%b//%b" % (first, last), b"%b///%b/" % (first, last), b"%b/./%b" % (first, last))
    yield from (b"/." + plain, b"/x/.." + plain, plain + b"/.", plain + b"/..", plain + b"/x/..", b"/x/%2e%2e" + plain)
    yield from (b"/%2e" + plain, b"/.//" + plain[1:], b"/.;/" + plain[1:])
    yield from (b"%b%%2F%b" % (first, last), plain + b"%2F", plain + b"%2f", b"%2F" + plain[1:], b"/%2F" + plain[1:])
    yield from (plain + b"%2Fx", b"%b%%252F%b" % (first, last), plain + b"%252F")
    yield from (b"/%%%02X%b" % (plain[1], plain[2:]), b"/%%25%02X%b" % (plain[1], plain[2:]))
    yield from (plain.upper(), plain.title(), plain.swapcase())
    yield from (plain + b"%20", b"/%20" + plain[1:], plain + b"%09", plain + b"%0A", plain + b"%0D%0A", plain + b"%00")
    yield b"%b%%0A/%b" % (first, last)
    yield from (
        plain + b"%FF",
        b"/%FF" + plain[1:],
        plain + b"%C0%AF",
        plain + b"%E2%80%8B",
        plain + b"%C3%A9",
        plain + b"\xff",
    )
    yield from (
        plain + b";x=1",
        plain + b"%3Bx",
        plain + b"?x=1",
        plain + b"/?x=1",
        plain + b"%3Fx=1",
        plain + b"#x",
        plain + b"%23x",
    )
    yield from (
        plain + b"\\",
        plain.replace(b"/", b"\\"),
        plain + b"%5C",
        b"%b%%5C%b" % (first, last),
        b"/\\" + plain[1:],
    )
    yield from (
        b"http://a.example" + plain,
        b"http://a.example/" + plain,
        b"//a.example" + plain,
        b"https://b.example:1" + plain + b"/",
    )
    yield from (plain[1:], b"*" + plain, b"/*" + plain, b"." + plain, b"a.example" + plain)
    yield from (b"/api" + plain, b"/api/" + plain, b"/api/api" + plain, b"/api" + plain + b"/", b"/apix" + plain)
    yield from (b"%b/" % first, first or b"/", plain + b".json", plain + b"+", plain + b":", plain + b"@x")
    if last.isdigit():
        for number in (
            b"-3",
            b"+3",
            b"%2B3",
            b"1_0",
            b"%203",
            b"3%20",
            b"3.0",
            b"1e3",
            b"%D9%A3",
            b"03",
            b"nan",
            b"0x3",
        ):
            yield b"%b/%b" % (first, number)
