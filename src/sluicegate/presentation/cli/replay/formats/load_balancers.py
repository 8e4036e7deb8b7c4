"""Read the logs of load balancers: AWS ALB and classic ELB, and HAProxy's HTTP format."""

import re

from sluicegate.presentation.cli.replay.formats.record import (
    AGENT_UNKNOWN,
    LoggedRequest,
    MalformedLine,
    ReaderOptions,
)
from sluicegate.presentation.cli.replay.formats.request_line import agent_kind, read_request
from sluicegate.presentation.cli.replay.formats.timestamps import any_time_us

_QUOTED = r'"([^"\\]*(?:\\.[^"\\]*)*)"'
_ALB = re.compile(
    # type time elb client target 3 durations 2 statuses 2 sizes "request" "agent"
    r"(?:(?:https?|h2|grpcs|wss?) )?([0-9]{4}-\S+) \S+ (\S+) \S+ \S+ \S+ \S+ ([0-9]{3}|-) \S+ \S+ \S+ "
    rf"{_QUOTED} {_QUOTED}"
    # cipher protocol group "trace" "domain" "certificate" priority created
    rf"(?: \S+ \S+ \S+ {_QUOTED} {_QUOTED} {_QUOTED} \S+ ([0-9]{{4}}-\S+))?"
)
_HAPROXY = re.compile(
    # client [accepted] frontend backend/server timers status size ... "request"; syslog writes something in front
    r"(?:\S.*? )?(\S+:[0-9]+) \[([0-9]{2}/[A-Za-z]{3}/[0-9]{4}(?::[0-9]{2}){3}\.[0-9]{1,6})\] \S+ [^\s/]+/\S+ "
    r'[0-9/+-]+ (-?[0-9]{1,3}) \+?[0-9]+ [^"]*"([^"]*)"?'
)


class AlbReader:
    """Read lines of an AWS application load balancer or a classic one.

    A request counts from when the balancer got it, where the log tells that, else from when it was answered.

    Args:
        options: Identities may come from `domain`, the host that was asked for.
    """

    def __init__(self, options: ReaderOptions) -> None:
        self._clients = options.clients
        self._identify = tuple(options.identify.values())

    def read(self, text: str) -> LoggedRequest | MalformedLine:
        """Read a line."""
        match = _ALB.match(text)
        if match is None:
            return MalformedLine("not a line of an AWS load balancer")
        answered, peer, status, request, agent, _, domain, _, created = match.groups()
        time_us = any_time_us(created or answered)
        client = self._clients.client(peer)
        target = read_request(request)
        if time_us is None:
            return MalformedLine(f"no such time: {(created or answered)[:40]!r}")
        if client is None or target is None:
            return MalformedLine(f"no client, method or path in {peer[:40]!r} {request[:80]!r}")
        names = tuple(domain if field == "domain" and domain else "" for field in self._identify)
        return LoggedRequest(time_us, client, *target, 0 if status == "-" else int(status), agent_kind(agent), names)


class HaproxyReader:
    """Read lines of HAProxy's `option httplog`, with or without syslog's words in front.

    Its instants have no zone and are taken for UTC. The request is cut where HAProxy cuts it.

    Args:
        options: The format has no field that identifies somebody else than the address does.
    """

    def __init__(self, options: ReaderOptions) -> None:
        self._clients = options.clients
        self._names = ("",) * len(options.identify)

    def read(self, text: str) -> LoggedRequest | MalformedLine:
        """Read a line."""
        match = _HAPROXY.match(text)
        if match is None:
            return MalformedLine("not a line of HAProxy's HTTP format")
        peer, accepted, status, request = match.groups()
        time_us = any_time_us(accepted)
        client = self._clients.client(peer)
        target = read_request(request)
        if time_us is None:
            return MalformedLine(f"no such time: {accepted!r}")
        if client is None or target is None:
            return MalformedLine(f"no method and path in the request {request[:80]!r}")
        return LoggedRequest(time_us, client, *target, max(0, int(status)), AGENT_UNKNOWN, self._names)
