"""What a client looks like."""

import pytest

from sluicegate.presentation.cli.replay.clients import Clients
from sluicegate.presentation.cli.replay.formats.record import (
    AGENT_NONE,
    AGENT_OTHER,
    AGENT_ROBOT,
    AGENT_UNKNOWN,
    LoggedRequest,
)
from support.access_logs import request_at


def watched(requests: list[LoggedRequest], **options: int) -> Clients:
    """Return clients that were watched."""
    clients = Clients(**options)
    for request in requests:
        clients.observe(request.client, request)
    return clients


def answers(*statuses: int, agent: int = AGENT_OTHER) -> list[LoggedRequest]:
    """Return requests of a client that were answered so."""
    return [request_at(number, status=status, agent=agent) for number, status in enumerate(statuses)]


@pytest.mark.parametrize(
    ("requests", "kind"),
    [
        (answers(200, 200), "honest"),
        (answers(200, agent=AGENT_UNKNOWN), "honest"),
        (answers(200, agent=AGENT_NONE), "no agent"),
        (answers(200, agent=AGENT_NONE) + answers(200), "honest"),
        (answers(200, agent=AGENT_ROBOT) + answers(*[200] * 9), "robot"),
        ([request_at(0, path="/robots.txt", agent=AGENT_OTHER)], "robot"),
        (answers(*[404] * 5, *[200] * 5), "prober"),
        (answers(*[401] * 20), "prober"),
        (answers(*[404] * 4, *[200] * 6), "honest"),
        (answers(*[404] * 9), "honest"),
        (answers(*[429] * 50, *[200] * 6, *[404] * 4), "honest"),
        (answers(*[0] * 50), "honest"),
        (answers(*[500] * 50), "honest"),
    ],
)
def test_a_client_is_what_its_requests_say(requests: list[LoggedRequest], kind: str) -> None:
    """Agent, robots.txt and answers tell; being limited already is no crime."""
    clients = watched(requests)
    assert clients.kind("192.0.2.1") == kind
    assert clients.counts()[kind] == 1


@pytest.mark.parametrize(("others", "requests", "kind"), [(20, 65, "outlier"), (20, 64, "honest"), (18, 900, "honest")])
def test_far_more_requests_than_others_send_make_an_outlier(others: int, requests: int, kind: str) -> None:
    """Eight times the upper quartile at least, and not among a handful of clients."""
    found = [request_at(0, f"192.0.2.{number}") for number in range(2, 2 + others) for _ in range(8)]
    assert watched(found + [request_at(0)] * requests).kind("192.0.2.1") == kind


def test_memory_is_bounded() -> None:
    """Clients beyond the bound count as honest-looking."""
    requests = [request_at(0, f"192.0.2.{number}", agent=AGENT_ROBOT) for number in range(9)]
    clients = watched(requests, max_profiles=3)
    assert len(clients) == 3
    assert [clients.kind(f"192.0.2.{number}") for number in (0, 8)] == ["robot", "honest"]
