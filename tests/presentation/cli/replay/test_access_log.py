"""Reading a line of an access log."""

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sluicegate.presentation.cli.replay.access_log import MAX_LINE_BYTES, LoggedRequest, MalformedLine, parse_line

NOON_S = int(datetime(2015, 5, 17, 12, 0, 0, tzinfo=UTC).timestamp())


def line(
    request: str = "GET / HTTP/1.1",
    *,
    address: str = "192.0.2.1",
    user: str = "-",
    time: str = "17/May/2015:12:00:00 +0000",
    tail: str = "200 5",
) -> bytes:
    """Return a line in Common format."""
    return f'{address} - {user} [{time}] "{request}" {tail}\n'.encode()


def read(raw: bytes) -> LoggedRequest:
    """Return what a well-formed line tells."""
    parsed = parse_line(raw)
    assert isinstance(parsed, LoggedRequest), parsed
    return parsed


def reason(raw: bytes) -> str:
    """Return why a line tells nothing."""
    parsed = parse_line(raw)
    assert isinstance(parsed, MalformedLine), parsed
    return parsed.reason


def test_a_line_in_common_format_is_read() -> None:
    """Time, address, method and path come out."""
    assert read(line("GET /a HTTP/1.0")) == LoggedRequest(NOON_S, "192.0.2.1", "GET /a")


def test_a_line_in_combined_format_is_read() -> None:
    """Referer and agent are passed over, with whatever quotes are in them, and so are fields after them."""
    tail = r'304 - "http://example.org/" "say \"hi\" \\" 0.003 "-"'
    assert read(line("POST /b HTTP/2.0", tail=tail)).endpoint == "POST /b"


@pytest.mark.parametrize(
    ("request_line", "endpoint"),
    [
        ("GET /search?q=1&r=/x HTTP/1.1", "GET /search"),
        ("GET /a#b HTTP/1.1", "GET /a"),
        ("GET /a b HTTP/1.1", "GET /a b"),
        ("GET /old", "GET /old"),
        ("GET http://example.org/a?b HTTP/1.1", "GET /a"),
        ("GET http://example.org HTTP/1.1", "GET /"),
        ("OPTIONS * HTTP/1.1", "OPTIONS *"),
        ("CONNECT example.org:443 HTTP/1.1", "CONNECT example.org:443"),
        ("GET /caf%C3%A9 HTTP/1.1", "GET /café"),
        (r"GET /caf\xc3\xa9 HTTP/1.1", "GET /café"),
        ("GET /café HTTP/1.1", "GET /café"),
        (r"GET /say\"hi\" HTTP/1.1", 'GET /say"hi"'),
        (r"GET /back\\slash HTTP/1.1", r"GET /back\slash"),
        (r"GET /a\tb HTTP/1.1", "GET /a\tb"),
        ("GET /%ff HTTP/1.1", "GET /\ufffd"),
    ],
)
def test_the_endpoint_is_method_and_decoded_path(request_line: str, endpoint: str) -> None:
    """The query is left out, and the path is decoded as an ASGI server decodes it."""
    assert read(line(request_line)).endpoint == endpoint


@pytest.mark.parametrize(
    ("time", "seconds"),
    [
        ("17/May/2015:14:00:00 +0200", NOON_S),
        ("17/May/2015:08:30:00 -0330", NOON_S),
        ("16/May/2015:23:59:60 +0000", NOON_S - 43_200),
        ("01/Jan/1970:00:00:00 +0000", 0),
        ("29/Feb/2016:00:00:00 +0000", 1_456_704_000),
    ],
)
def test_the_time_is_in_seconds_since_1970(time: str, seconds: int) -> None:
    """Zones and leap seconds are taken into account."""
    assert read(line(time=time)).time_s == seconds


@pytest.mark.parametrize(
    "time",
    [
        "31/Feb/2015:12:00:00 +0000",
        "17/Mai/2015:12:00:00 +0000",
        "17/May/2015:24:00:00 +0000",
        "17/May/2015:12:60:00 +0000",
        "17/May/2015:12:00:61 +0000",
        "17/May/2015:12:00:00 +9900",
        "31/Dec/1969:23:59:59 +0000",
        "01/Jan/1970:00:00:00 +0100",
        "01/Jan/2100:00:00:00 +0000",
        "00/Jan/2015:00:00:00 +0000",
    ],
)
def test_a_time_that_never_was_is_malformed(time: str) -> None:
    """The reason shows the time."""
    assert time in reason(line(time=time))


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"\n",
        b"GET / HTTP/1.1",
        b'192.0.2.1 - - [17/May/2015:12:00:00] "GET / HTTP/1.1" 200 5',
        b'192.0.2.1 - - [17/May/2015:12:00:00 +0000] "GET / HTTP/1.1 200 5',
        b'192.0.2.1 - - [17/May/2015:12:00:00 +0000] "GET / HTTP/1.1" 2000 5',
        b'192.0.2.1 - - [17/May/2015:12:00:00 +0000] "GET /"x" HTTP/1.1" 200 5',
        b'192.0.2.1 - - [17/May/2015:12:00:00 +0000] "GET / HTTP/1.1" 200 5x',
    ],
)
def test_another_format_is_malformed(raw: bytes) -> None:
    """What is neither Common nor Combined is said to be neither."""
    assert reason(raw) == "not in Common or Combined format"


@pytest.mark.parametrize("request_line", ["-", "", "GET", "GET ", r"\x16\x03\x01", "G:T / HTTP/1.1", "GET ?q HTTP/1.1"])
def test_a_request_without_method_and_path_is_malformed(request_line: str) -> None:
    """Servers log such lines for connections that sent no request; the limiter was never asked."""
    assert reason(line(request_line)).startswith("no method and path")


def test_a_line_with_the_virtual_host_in_front_is_malformed() -> None:
    """In vhost_combined the first field is not the client: reading it as one would put all clients into one bucket."""
    assert "vhost_combined" in reason(line(address="example.org:443 192.0.2.1"))


def test_a_user_may_contain_spaces() -> None:
    """A user's name is no reason to lose a line."""
    assert read(line(user="Ada Lovelace")).address == "192.0.2.1"


def test_bytes_that_are_no_text_survive() -> None:
    """A broken encoding in the address or path reads as the escape that the server would have written."""
    raw = line("GET /@ HTTP/1.1").replace(b"@", b"\xff").replace(b"192.0.2.1", b"\xfe")
    assert read(raw) == LoggedRequest(NOON_S, r"\xfe", "GET /\ufffd")


def test_a_line_without_end_is_malformed() -> None:
    """A line beyond the limit is not looked into."""
    assert read(line("GET /" + "a" * (MAX_LINE_BYTES - 200) + " HTTP/1.1")).endpoint.endswith("a")
    assert "longer" in reason(line("GET /" + "a" * MAX_LINE_BYTES + " HTTP/1.1"))


@given(st.binary(max_size=300))
def test_no_bytes_make_it_raise(raw: bytes) -> None:
    """Whatever stands in a log, it is read or malformed."""
    assert isinstance(parse_line(raw), LoggedRequest | MalformedLine)


@given(
    st.lists(
        st.sampled_from(
            [b"192.0.2.1", b" ", b"-", b" - - [", b"17/May/2015:12:00:00 +0000", b"] ", b'"', b"\\", b"GET /"]
        )
        | st.binary(max_size=4),
        max_size=30,
    )
)
def test_no_pieces_of_a_line_make_it_raise(pieces: list[bytes]) -> None:
    """The same for bytes that look more like a log."""
    assert isinstance(parse_line(b"".join(pieces)), LoggedRequest | MalformedLine)


@given(
    address=st.from_regex(r"\A[!-~]{1,40}\Z"),
    method=st.sampled_from(["GET", "POST", "M-SEARCH"]),
    path=st.text(st.characters(exclude_characters="?#", exclude_categories=["Cs"]), max_size=40),
    time_s=st.integers(0, 4_102_444_799),
)
def test_what_a_server_writes_is_read_back(address: str, method: str, path: str, time_s: int) -> None:
    """Any path, escaped as Apache does, comes back from the line as it was."""
    escaped = "".join(
        chr(byte) if 0x20 < byte < 0x7F and chr(byte) not in '"\\%' else f"\\x{byte:02x}" for byte in path.encode()
    )
    time = datetime.fromtimestamp(time_s, tz=UTC)
    raw = line(f"{method} /{escaped} HTTP/1.1", address=address, time=time.strftime("%d/%b/%Y:%H:%M:%S +0000"))
    assert read(raw) == LoggedRequest(time_s, address, f"{method} /{path}")
