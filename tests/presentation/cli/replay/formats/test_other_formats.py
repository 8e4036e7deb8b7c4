"""Reading every format but Common and Combined, from samples after the vendors' documentation; and telling formats apart."""

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sluicegate.domain.errors import InvalidInputError
from sluicegate.presentation.cli.replay.formats.catalogue import FORMATS, detect, format_named, known_formats
from sluicegate.presentation.cli.replay.formats.record import (
    AGENT_OTHER,
    AGENT_ROBOT,
    AGENT_UNKNOWN,
    LoggedRequest,
    MalformedLine,
)
from support.access_logs import combined_line, reader_options

AGENT = "Mozilla/5.0 (X11; Linux x86_64) Firefox/140.0"

CADDY = (
    '{"level":"info","ts":1764158400.25,"logger":"http.log.access","msg":"handled request","request":{"remote_ip":'
    '"10.0.0.4","remote_port":"41342","client_ip":"198.51.100.7","proto":"HTTP/2.0","method":"GET","host":"example.org","uri":'
    '"/users/17?tab=1","headers":{"User-Agent":["'
    + AGENT
    + '"],"X-User":["ann"]}},"duration":0.01,"size":9,"status":404}'
)
TRAEFIK = (
    '{"ClientAddr":"198.51.100.7:51402","ClientHost":"198.51.100.7","DownstreamStatus":404,"RequestMethod":"GET","RequestPath":'
    '"/users/17?tab=1","StartUTC":"2025-11-26T12:00:00.250000000Z","request_User-Agent":"' + AGENT + '","level":"info",'
    '"time":"2025-11-26T12:00:01Z"}'
)
NGINX_JSON = (
    '{"time_local":"26/Nov/2025:12:00:00 +0000","remote_addr":"10.0.0.4","http_x_forwarded_for":"198.51.100.7","request":'
    '"GET /users/17?tab=1 HTTP/1.1","status":"404","http_user_agent":"' + AGENT + '"}'
)
ALB = (
    "h2 2025-11-26T12:00:00.750000Z app/my-balancer/50dc6c495c0c9188 198.51.100.7:46532 10.0.0.66:9000 0.000 0.500 0.000 404 404"
    f' 34 366 "GET https://example.org:443/users/17?tab=1 HTTP/2.0" "{AGENT}" ECDHE-RSA-AES128-GCM-SHA256 TLSv1.2'
    " arn:aws:elasticloadbalancing:eu-central-1:123456789012:targetgroup/my-targets/73e2d6bc24d8a067"
    ' "Root=1-58337364-23a8c76965a2ef7629b185e3" "example.org" "session-reused" 0 2025-11-26T12:00:00.250000Z "forward" "-" "-"'
)
ELB = (
    "2025-11-26T12:00:00.250000Z my-balancer 198.51.100.7:2817 10.0.0.1:80 0.000073 0.001048 0.000057 404 404 0 29"
    f' "GET http://example.org:80/users/17?tab=1 HTTP/1.1" "{AGENT}" - -'
)
IIS_FIELDS = (
    "#Fields: date time s-ip cs-method cs-uri-stem cs-uri-query s-port cs-username c-ip cs(User-Agent) cs(Referer) sc-status"
    " sc-substatus sc-win32-status time-taken"
)
IIS = (
    "2025-11-26 12:00:00 10.0.0.9 GET /users/17 tab=1 443 ann 198.51.100.7 " + AGENT.replace(" ", "+") + " - 404 0 2 15"
)
CLOUDFRONT_FIELDS = (
    "#Fields: date time x-edge-location sc-bytes c-ip cs-method cs(Host) cs-uri-stem sc-status cs(Referer) cs(User-Agent)"
    " cs-uri-query x-forwarded-for"
)
CLOUDFRONT = (
    "2025-11-26\t12:00:00\tFRA50-C1\t1045\t198.51.100.7\tGET\td111111abcdef8.cloudfront.net\t/users/17\t404\t-\t"
    + AGENT.replace(" ", "%20")
    + "\ttab=1\t-"
)
HAPROXY = (
    "Nov 26 12:00:01 proxy haproxy[14389]: 198.51.100.7:33317 [26/Nov/2025:12:00:00.250] http-in static/srv1"
    ' 10/0/30/69/109 404 2750 - - ---- 1/1/1/1/0 0/0 {example.org} {} "GET /users/17?tab=1 HTTP/1.1"'
)
CSV_HEADER = "timestamp,client_ip,method,path,status,user_agent,user"
CSV_ROW = f'2025-11-26T12:00:00.25Z,198.51.100.7,GET,"/users/17?tab=1",404,"{AGENT}",ann'

AT_NOON_US = int(datetime(2025, 11, 26, 12, tzinfo=UTC).timestamp()) * 1_000_000


@pytest.mark.parametrize(
    ("name", "lines", "fraction_us", "agent"),
    [
        ("json", [CADDY], 250_000, AGENT_OTHER),
        ("json", [TRAEFIK], 250_000, AGENT_OTHER),
        ("json", [NGINX_JSON], 0, AGENT_OTHER),
        ("alb", [ALB], 250_000, AGENT_OTHER),
        ("alb", [ELB], 250_000, AGENT_OTHER),
        ("w3c", ["#Software: Microsoft Internet Information Services 10.0", IIS_FIELDS, IIS], 0, AGENT_OTHER),
        ("w3c", ["#Version: 1.0", CLOUDFRONT_FIELDS, CLOUDFRONT], 0, AGENT_OTHER),
        ("haproxy", [HAPROXY], 250_000, AGENT_UNKNOWN),
        ("haproxy", [HAPROXY.partition("]: ")[2]], 250_000, AGENT_UNKNOWN),
        ("csv", [CSV_HEADER, CSV_ROW], 250_000, AGENT_OTHER),
        ("csv", [CSV_HEADER.replace(",", ";"), CSV_ROW.replace(",", ";")], 250_000, AGENT_OTHER),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_each_format_is_detected_and_tells_the_same_request(
    name: str, lines: list[str], fraction_us: int, agent: int
) -> None:
    """Time, client, method, path without the query, status and agent come out, whoever wrote the log."""
    found = detect(lines, reader_options())
    assert found is not None
    assert found.name == name
    reader = found.open(reader_options())
    *headers, request = [reader.read(line) for line in lines]
    assert headers == [None] * (len(lines) - 1)
    assert request == LoggedRequest(AT_NOON_US + fraction_us, "198.51.100.7", "GET", "/users/17", 404, agent)


@pytest.mark.parametrize(
    ("name", "lines", "identify"),
    [
        ("json", [CADDY], {"user": "request.headers.X-User"}),
        ("w3c", [IIS_FIELDS, IIS], {"user": "cs-username"}),
        ("csv", [CSV_HEADER, CSV_ROW], {"user": "user"}),
    ],
)
def test_a_field_may_identify_the_client(name: str, lines: list[str], identify: dict[str, str]) -> None:
    """What the log says of the user is carried along."""
    reader = FORMATS[name].open(reader_options(identify=identify))
    requests = [reader.read(line) for line in lines]
    assert isinstance(requests[-1], LoggedRequest)
    assert requests[-1].names == ("ann",)


def test_fields_of_json_can_be_named() -> None:
    """A log of one's own, with nested names, and a time in milliseconds."""
    fields = {"time": "at.ms", "client": "who", "method": "verb", "path": "what"}
    reader = FORMATS["json"].open(reader_options(fields=fields))
    found = reader.read('{"at": {"ms": 1764158400250}, "who": "198.51.100.7", "verb": "GET", "what": "/users/17"}')
    assert found == LoggedRequest(AT_NOON_US + 250_000, "198.51.100.7", "GET", "/users/17")


@pytest.mark.parametrize(
    ("name", "lines", "reason"),
    [
        ("json", ['{"a": '], "not JSON"),
        ("json", ["[1]"], "not a JSON object"),
        ("json", ['{"ts": 1, "status": 200}'], "no client's address; looked for it in"),
        ("json", ['{"ts": "yesterday", "client": "192.0.2.1"}'], "no time; looked for it in"),
        ("json", ['{"ts": 1, "client": "192.0.2.1", "msg": "started"}'], "no method and path"),
        ("alb", ["h2 2025-11-26T12:00:00Z x y"], "not a line of an AWS load balancer"),
        (
            "alb",
            [ALB.replace("GET https://example.org:443/users/17?tab=1 HTTP/2.0", "- - - ")],
            "no client, method or path",
        ),
        ("w3c", [IIS], "no #Fields line before it"),
        ("w3c", ["#Fields: date time", "2025-11-26 12:00:00"], "does not name c-ip, cs-method, cs-uri-stem"),
        ("w3c", [IIS_FIELDS, IIS + " more"], "16 fields, and the #Fields line names 15"),
        ("haproxy", [HAPROXY.replace("GET /users/17?tab=1 HTTP/1.1", "<BADREQ>")], "no method and path"),
        ("haproxy", ["Nov 26 12:00:01 proxy haproxy[1]: Server static/srv1 is DOWN"], "not a line of HAProxy"),
        ("csv", ["nothing", "at all"], "does not name the columns"),
        ("csv", [CSV_HEADER, "a,b"], "2 columns, and the header has 7"),
    ],
)
def test_what_cannot_be_read_says_why(name: str, lines: list[str], reason: str) -> None:
    """The reason names the field."""
    reader = FORMATS[name].open(reader_options())
    found = [reader.read(line) for line in lines][-1]
    assert isinstance(found, MalformedLine)
    assert reason in found.reason


def test_new_fields_may_begin_in_the_middle_of_a_file() -> None:
    """IIS writes a new `#Fields` line when its settings change."""
    reader = FORMATS["w3c"].open(reader_options())
    lines = [IIS_FIELDS, IIS, "#Fields: date time c-ip cs-method cs-uri-stem", "2025-11-26 12:00:01 192.0.2.9 GET /b"]
    found = [one for one in map(reader.read, lines) if isinstance(one, LoggedRequest)]
    assert [one.path for one in found] == ["/users/17", "/b"]


def test_the_format_of_most_lines_is_taken() -> None:
    """A stray line does not decide, and lines in no format have none."""
    lines = [CADDY, *[combined_line(second).strip() for second in range(3)], "nonsense"]
    found = detect(lines, reader_options())
    assert found is not None
    assert found.name == "combined"
    assert detect(["nonsense", "and more"], reader_options()) is None


def test_an_unknown_format_field_or_identity_is_refused_by_name() -> None:
    """And the message says what there is."""
    with pytest.raises(InvalidInputError, match="format='clf'.*combined.*haproxy"):
        format_named("clf")
    with pytest.raises(InvalidInputError, match="field='tme'.*time"):
        FORMATS["json"].open(reader_options(fields={"tme": "x"}))
    with pytest.raises(InvalidInputError, match="identify='user=agent'.*user, host, referer"):
        FORMATS["combined"].open(reader_options(identify={"user": "agent"}))
    with pytest.raises(InvalidInputError, match="none besides the address"):
        FORMATS["haproxy"].open(reader_options(identify={"user": "agent"}))
    assert all(name in known_formats() for name in FORMATS)


def test_a_list_of_hops_of_iis_is_read() -> None:
    """A field of its own, in which plus signs stand for spaces, believed from a private peer."""
    reader = FORMATS["w3c"].open(reader_options())
    reader.read("#Fields: date time c-ip cs-method cs-uri-stem X-Forwarded-For")
    found = reader.read("2025-11-26 12:00:00 10.0.0.1 GET /a 198.51.100.7,+10.0.0.2")
    assert isinstance(found, LoggedRequest)
    assert found.client == "198.51.100.7"


def test_a_robot_of_iis_is_one() -> None:
    """The plus signs stand for spaces."""
    reader = FORMATS["w3c"].open(reader_options())
    reader.read(IIS_FIELDS)
    found = reader.read(IIS.replace(AGENT.replace(" ", "+"), "Googlebot/2.1+(+http://www.google.com/bot.html)"))
    assert isinstance(found, LoggedRequest)
    assert found.agent == AGENT_ROBOT


@given(st.sampled_from(sorted(FORMATS)), st.lists(st.text(max_size=80), max_size=4))
def test_no_text_makes_a_reader_raise(name: str, lines: list[str]) -> None:
    """Whatever stands in a log, each line is read, malformed or no request."""
    reader = FORMATS[name].open(reader_options())
    for line in lines:
        assert isinstance(reader.read(line), LoggedRequest | MalformedLine | None)


@given(
    st.sampled_from([CADDY, TRAEFIK, NGINX_JSON, ALB, ELB, HAPROXY, IIS, CLOUDFRONT, CSV_ROW]),
    st.integers(0, 400),
    st.integers(0, 30),
    st.text(max_size=6),
)
def test_no_damage_makes_a_reader_raise(line: str, place: int, length: int, text: str) -> None:
    """Lines that were cut, or whose middle is something else."""
    damaged = line[:place] + text + line[place + length :]
    for one in FORMATS.values():
        reader = one.open(reader_options())
        for header in (IIS_FIELDS, CLOUDFRONT_FIELDS, CSV_HEADER):
            reader.read(header)
        assert isinstance(reader.read(damaged), LoggedRequest | MalformedLine | None)
