"""Reading a line in Common or Combined format, and what people put in front of it and behind."""

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sluicegate.presentation.cli.replay.formats.combined import CombinedReader
from sluicegate.presentation.cli.replay.formats.record import (
    AGENT_NONE,
    AGENT_OTHER,
    AGENT_ROBOT,
    AGENT_UNKNOWN,
    LoggedRequest,
    MalformedLine,
)
from support.access_logs import BROWSER, reader_options

NOON_S = int(datetime(2015, 5, 17, 12, 0, 0, tzinfo=UTC).timestamp())
READER = CombinedReader(reader_options())


def line(
    request: str = "GET / HTTP/1.1",
    *,
    address: str = "192.0.2.1",
    user: str = "-",
    time: str = "17/May/2015:12:00:00 +0000",
    tail: str = "200 5",
) -> str:
    """Return a line in Common format."""
    return f'{address} - {user} [{time}] "{request}" {tail}'


def read(raw: str) -> LoggedRequest:
    """Return what a well-formed line tells."""
    parsed = READER.read(raw)
    assert isinstance(parsed, LoggedRequest), parsed
    return parsed


def reason(raw: str) -> str:
    """Return why a line tells nothing."""
    parsed = READER.read(raw)
    assert isinstance(parsed, MalformedLine), parsed
    return parsed.reason


def test_a_line_in_common_format_is_read() -> None:
    """Time, address, method and path come out."""
    assert read(line("GET /a HTTP/1.0")) == LoggedRequest(NOON_S * 1_000_000, "192.0.2.1", "GET", "/a", 200)


def test_a_line_in_combined_format_is_read() -> None:
    """Referer and agent are passed over, with whatever quotes are in them, and so are fields after them."""
    tail = r'304 - "http://example.org/" "say \"hi\" \\" 0.003 "-"'
    found = read(line("POST /b HTTP/2.0", tail=tail))
    assert (found.method, found.path, found.status, found.agent) == ("POST", "/b", 304, AGENT_OTHER)


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
    found = read(line(request_line))
    assert f"{found.method} {found.path}" == endpoint


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
    assert read(line(time=time)).time_us == seconds * 1_000_000


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
        "",
        "\n",
        "GET / HTTP/1.1",
        '192.0.2.1 - - [17/May/2015:12:00:00] "GET / HTTP/1.1" 200 5',
        '192.0.2.1 - - [17/May/2015:12:00:00 +0000] "GET / HTTP/1.1 200 5',
        '192.0.2.1 - - [17/May/2015:12:00:00 +0000] "GET / HTTP/1.1" 2000 5',
        '192.0.2.1 - - [17/May/2015:12:00:00 +0000] "GET /"x" HTTP/1.1" 200 5',
        '192.0.2.1 - - [17/May/2015:12:00:00 +0000] "GET / HTTP/1.1" 200 5x',
    ],
)
def test_another_format_is_malformed(raw: str) -> None:
    """What is neither Common nor Combined is said to be neither."""
    assert reason(raw) == "not in Common or Combined format"


@pytest.mark.parametrize("request_line", ["-", "", "GET", "GET ", r"\x16\x03\x01", "G:T / HTTP/1.1", "GET ?q HTTP/1.1"])
def test_a_request_without_method_and_path_is_malformed(request_line: str) -> None:
    """Servers log such lines for connections that sent no request; the limiter was never asked."""
    assert reason(line(request_line)).startswith("no method and path")


@pytest.mark.parametrize(
    ("front", "client"),
    [
        ("192.0.2.1 - -", "192.0.2.1"),
        ("host.example.org - ann", "host.example.org"),
        ("2001:db8::7 - -", "2001:db8::/64"),
        ("example.org:443 192.0.2.1 - -", "192.0.2.1"),
        ("example.org 192.0.2.1 - -", "192.0.2.1"),
        ("example.org:443 client.example.net - -", "client.example.net"),
        ("192.0.2.80:80 198.51.100.7 - -", "198.51.100.7"),
        ("10.0.0.2, 10.0.0.1, 85.181.35.98 - -", "85.181.35.98"),
        ("85.181.35.98, 10.0.0.1 - -", "85.181.35.98"),
        ("9.9.9.9,85.181.35.98,10.0.0.1 - -", "85.181.35.98"),
        ("85.181.35.98, 10.0.0.1 10.0.0.2 - -", "85.181.35.98"),
        ("9.9.9.9, 85.181.35.98 198.51.100.7 - -", "198.51.100.7"),
        ("85.181.35.98 10.0.0.2 - -", "85.181.35.98"),
        ("- 198.51.100.7 - -", "198.51.100.7"),
        ('"85.181.35.98, 10.0.0.1" 10.0.0.2 - -', "85.181.35.98"),
        ("10.0.0.2, 10.0.0.1 - -", "10.0.0.2"),
    ],
)
def test_the_client_is_told_from_hosts_and_proxies_in_front(front: str, client: str) -> None:
    """A virtual host is no client, and of a list of hops the last one that is not private is."""
    assert read(f'{front} [17/May/2015:12:00:00 +0000] "GET / HTTP/1.1" 200 5').client == client


def test_a_list_behind_the_agent_is_believed_from_a_private_peer_alone() -> None:
    """Nginx's `main` format ends with X-Forwarded-For, which a public peer may have made up."""
    tail = '200 5 "-" "agent" "9.9.9.9, 85.181.35.98"'
    assert read(line(address="10.0.0.2", tail=tail)).client == "85.181.35.98"
    assert read(line(address="198.51.100.7", tail=tail)).client == "198.51.100.7"
    trusting = CombinedReader(reader_options(proxies=["198.51.100.0/24"]))
    found = trusting.read(line(address="198.51.100.7", tail=tail))
    assert isinstance(found, LoggedRequest)
    assert found.client == "85.181.35.98"


def test_a_line_with_a_field_too_many_is_malformed() -> None:
    """Which of two names is the client's cannot be told."""
    assert "vhost_combined" in reason(line(address="example.org client.example.net"))
    assert "expected the client" in reason('192.0.2.1 [17/May/2015:12:00:00 +0000] "GET / HTTP/1.1" 200 5')


@pytest.mark.parametrize(
    ("tail", "kind"),
    [
        ("200 5", AGENT_UNKNOWN),
        ('200 5 "-" "-"', AGENT_NONE),
        ('200 5 "-" "curl/8.1"', AGENT_ROBOT),
        ('200 5 "-" "Mozilla/5.0 (compatible; Googlebot/2.1; +http://www.google.com/bot.html)"', AGENT_ROBOT),
        (f'200 5 "-" "{BROWSER}"', AGENT_OTHER),
    ],
)
def test_what_the_agent_says_of_itself_is_kept(tail: str, kind: int) -> None:
    """A robot is told from a browser, and no agent from a log without agents."""
    assert read(line(tail=tail)).agent == kind


def test_user_host_and_referer_may_identify() -> None:
    """In the order in which they were asked for; a dash is nobody."""
    reader = CombinedReader(reader_options(identify={"user": "user", "site": "host"}))
    named = reader.read('example.org:443 192.0.2.1 - ann [17/May/2015:12:00:00 +0000] "GET / HTTP/1.1" 200 5')
    nobody = reader.read('192.0.2.1 - - [17/May/2015:12:00:00 +0000] "GET / HTTP/1.1" 200 5')
    assert isinstance(named, LoggedRequest)
    assert isinstance(nobody, LoggedRequest)
    assert (named.names, nobody.names) == (("ann", "example.org:443"), ("", ""))


def test_a_user_may_contain_spaces() -> None:
    """A user's name is no reason to lose a line."""
    assert read(line(user="Ada Lovelace")).client == "192.0.2.1"


@given(st.text(max_size=300))
def test_no_text_makes_it_raise(raw: str) -> None:
    """Whatever stands in a log, it is read or malformed."""
    assert isinstance(READER.read(raw), LoggedRequest | MalformedLine)


@given(
    st.lists(
        st.sampled_from(
            ["192.0.2.1", " ", ",", "-", " - - [", "17/May/2015:12:00:00 +0000", "] ", '"', "\\", "GET /", "[::1]:80"]
        )
        | st.text(max_size=4),
        max_size=30,
    )
)
def test_no_pieces_of_a_line_make_it_raise(pieces: list[str]) -> None:
    """The same for texts that look more like a log."""
    assert isinstance(READER.read("".join(pieces)), LoggedRequest | MalformedLine)


@given(
    address=st.from_regex(r"\A[a-z.]{1,40}\Z"),
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
    found = read(raw)
    assert (found.time_us, found.method, found.path) == (time_s * 1_000_000, method, f"/{path}")
    assert found.client
