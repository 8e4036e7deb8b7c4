"""What is explained is what the limiter does."""

import os
import random
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address, ip_network

import pytest

from sluicegate import InvalidInputError, MemoryStorage, Success, SyncTokenBucketAdapter
from sluicegate.application.rules.rule_explanation import Explainer, Explanation
from sluicegate.application.rules.rules_snapshot import take_snapshot
from sluicegate.domain.arguments import Identifier
from sluicegate.domain.buckets.bucket_key import KeyFormat
from sluicegate.domain.buckets.bucket_request import BucketRequest, Verdict
from sluicegate.domain.rules.rule_book import RuleBook
from sluicegate.infrastructure.rules_file.reader import parse_rules
from sluicegate.testing import RecordingLogger

REQUESTS = 100_000 if os.environ.get("SLUICEGATE_LONG") else 10_000
NOON = datetime(2026, 11, 24, 12, tzinfo=UTC)

TEXT = """
unmatched = ["600/minute per ip", "9/second per global"]

[policies]
login = "5/minute per ip"
account = { rate = "20/hour per user", shadow = true }
search = { rate = "10/minute burst 20 per user", overrides = [
    { id = "partner", rate = "1000/minute", reason = "contract" },
    { id = "robot", enabled = false },
    { id = "guest", rate = "3/minute", until = 2026-11-24T12:05:00Z },
] }
heavy = { rate = "30/hour", cost = 3, overrides = [{ id = "10.9.0.0/16", rate = "90/hour" }] }
off = { rate = "1/day", enabled = false }

[endpoints]
"POST /sessions" = ["login", "account", "1000/hour per global"]
"GET /search" = ["search", "heavy"]
"GET /items/{id}" = "100/minute"
"GET /items/{id}/{part:path}" = { rules = ["heavy", "login"], cost = 2 }
"GET /off" = "off"
send_mail = { rate = "3/day per user", shadow = true }

[groups.exports]
rules = ["20/day per user", "off"]
endpoints = ["GET /search", "GET /export"]

[allow]
ip = ["10.1.0.0/16", { id = "192.0.2.0/24", until = 2026-11-24T12:05:00Z }]
user = ["root"]
[deny]
ip = ["10.1.6.0/24", "2001:db8::/32", { id = "192.0.2.128/25", until = 2026-11-24T12:02:00Z }]
user = ["mallory"]
"""


BOOK = parse_rules(TEXT)
ENDPOINTS = (
    *("POST /sessions", "GET /search", "GET /items/9", "GET /items/9/a/b", "GET /off", "GET /export", "send_mail"),
    *("GET /x", "x"),
)


def explainer(text: str = TEXT, now: datetime = NOON) -> Explainer:
    """Return an explainer of rules at an instant."""
    key_format = KeyFormat()
    return Explainer(take_snapshot(parse_rules(text), key_format, now), key_format, lambda: now)


def test_rules_come_in_order_with_keys_limits_and_reasons() -> None:
    """The endpoint's own rules first, then the group's; an override says so; a shadow watches."""
    explained = explainer().explain("GET /search", {"user": "partner", "ip": "10.9.0.1"})
    assert (explained.matched, explained.outcome) == ("GET /search", "checked")
    assert [(r.policy, r.effect, r.key, r.max_tokens, r.cost) for r in explained.rules] == [
        ("search", "decides", "rate_limit:user:partner:GET /search", 1000, 1),
        ("heavy", "decides", "rate_limit:ip:10.9.0.1:GET /search", 90, 3),
        ("user-20-86400s", "decides", "rate_limit:user:partner:exports", 20, 1),
        ("off", "off", "", 1, 1),
    ]
    assert explained.rules[0].why == ("the endpoint GET /search names it", "an override is for partner (contract)")
    assert explained.rules[2].why == ("the endpoint is in the group exports",)
    assert explained.rules[3].why == ("the endpoint is in the group exports", "enabled = false")


@pytest.mark.parametrize(
    ("endpoint", "identifier", "cost", "matched", "outcome", "why"),
    [
        (
            "GET /items/7",
            "11.0.0.1",
            0,
            "GET /items/{id}",
            "checked",
            "all of the rules that decide must have the tokens",
        ),
        ("GET /nowhere", "11.0.0.1", 0, "*", "checked", "all of the rules that decide must have the tokens"),
        ("GET /off", "11.0.0.1", 0, "GET /off", "allowed", "none of its rules may deny"),
        ("send_mail", "bob", 0, "send_mail", "allowed", "none of its rules may deny"),
        ("GET /items/7", "10.1.6.6", 0, "GET /items/{id}", "denied", "the deny list has ip 10.1.6.0/24"),
        (
            "GET /items/7",
            "192.0.2.1",
            0,
            "GET /items/{id}",
            "allowed",
            "the allow list has ip 192.0.2.0/24 until 2026-11-24T12:05:00+00:00",
        ),
        (
            "GET /items/7",
            "11.0.0.1",
            101,
            "GET /items/{id}",
            "impossible",
            "it costs more than the smallest bucket holds, 100",
        ),
    ],
)
def test_the_outcome_has_a_reason(  # noqa: PLR0913, PLR0917 - a table
    endpoint: str, identifier: str, cost: int, matched: str, outcome: str, why: str
) -> None:
    """Each kind of outcome."""
    explained = explainer().explain(endpoint, identifier, cost)
    assert (explained.matched, explained.outcome, explained.why) == (matched, outcome, why)


def test_without_a_rule_and_with_a_kill_switch() -> None:
    """No rule is no error; a kill switch is named with its end and reason."""
    bare = explainer('[endpoints]\n"GET /a" = "5/minute"\n').explain("GET /b", "x")
    assert (bare.matched, bare.outcome, bare.rules) == (None, "no_rule", ())
    text = 'kill_switch = { until = 2026-11-24T12:05:00Z, reason = "incident" }\n[endpoints]\n"GET /a" = "5/minute"\n'
    off = explainer(text).explain("GET /a", "x")
    assert (off.outcome, off.why) == (
        "allowed",
        "the kill switch is thrown until 2026-11-24T12:05:00+00:00 (incident)",
    )
    assert off.rules[0].effect == "off"
    assert explainer(text, NOON + timedelta(minutes=5)).explain("GET /a", "x").outcome == "checked"


def test_a_listed_request_shows_the_rules_it_escapes() -> None:
    """They are overruled, not gone."""
    explained = explainer().explain("GET /search", {"user": "root", "ip": "11.0.0.1"})
    assert [rule.effect for rule in explained.rules] == ["overruled", "overruled", "overruled", "off"]


def test_what_the_check_refuses_is_refused() -> None:
    """A missing scope is the same error as in a check."""
    with pytest.raises(InvalidInputError, match="has no entry for the scope 'user'"):
        explainer().explain("GET /search", {"ip": "11.0.0.1"})


class KeepingStorage(MemoryStorage):
    """A storage that keeps what it was asked, each check by itself."""

    def __init__(self) -> None:
        super().__init__()
        self.asked: list[tuple[BucketRequest, ...]] = []

    def take_nowait(self, requests: object, /) -> Verdict:
        """Keep the requests and allow them."""
        self.asked.append(tuple(requests))  # type: ignore[arg-type]
        return super().take_nowait(requests)  # type: ignore[arg-type]


def limits(requests: list[BucketRequest]) -> list[tuple[str, int, int]]:
    """Return keys, capacities and costs in tokens."""
    return [(d.key, d.spec.max_tokens, d.cost_units // d.spec.units_per_token) for d in requests]


def plain_list_outcome(book: RuleBook, names: dict[str, str], now: datetime) -> str | None:
    """Search the lists from one end to the other: a second opinion that shares no code with the limiter."""
    verdicts: list[str] = []
    for scope, name in names.items():
        hits = []
        for which, listings in (("allowed", book.allow), ("denied", book.deny)):
            for one in listings:
                if one.scope != scope or (one.until is not None and one.until <= now):
                    continue
                if scope != "ip":
                    hits += [(0, which)] if one.identifier == name else []
                elif (address := ip_address(name)) in (network := ip_network(one.identifier)):
                    hits += [(network.prefixlen, which)]
                    assert address.version == network.version
        if hits:
            verdicts.append(max(hits)[1])
    return None if not verdicts else "denied" if "denied" in verdicts else "allowed"


def test_explanation_and_limiter_agree() -> None:
    """On many generated requests: the same outcome, the same keys, limits and costs, and the same shadows."""
    random_ = random.Random(20261124)
    for minutes in (0, 3, 6):
        now = NOON + timedelta(minutes=minutes)
        explain = explainer(TEXT, now).explain
        storage = KeepingStorage()
        limiter = SyncTokenBucketAdapter(
            storage=storage, rules=parse_rules(TEXT), logger=RecordingLogger(), wall_clock=lambda now=now: now
        )
        outcomes = dict.fromkeys(("checked", "allowed", "denied", "impossible"), 0)
        for _ in range(REQUESTS // 3 + 1):
            names = {
                "ip": random_.choice(
                    ["10.1.2.3", "10.1.6.6", "192.0.2.1", "192.0.2.200", "10.9.1.1", "2001:db8::7", "11.0.0.1"]
                )
                if random_.random() < 0.7
                else str(ip_address(random_.getrandbits(32))),
                "user": random_.choice(["bob", "partner", "robot", "guest", "root", "mallory", "a:b"]),
            }
            endpoint = random_.choice(ENDPOINTS)
            identifier: Identifier = names if random_.random() < 0.8 else names["ip"]
            cost = random_.choice([0, 0, 0, 1, 2, 50, 5000])
            storage.asked.clear()
            result = limiter.is_allowed(endpoint=endpoint, identifier=identifier, cost=cost)
            explained = explain(endpoint, identifier, cost)
            outcomes[explained.outcome] += 1
            agree(explained, result, storage, cost)
            if identifier is names and explained.outcome not in {"impossible", "checked"}:
                listed = plain_list_outcome(BOOK, names, now)
                assert listed == explained.outcome or (listed is None and explained.outcome == "allowed")
            elif identifier is names:
                assert plain_list_outcome(BOOK, names, now) is None
        assert min(outcomes.values()) > REQUESTS // 200, outcomes


def agree(explained: Explanation, result: object, storage: KeepingStorage, cost: int) -> None:
    """Compare one explanation with what the limiter answered and asked."""
    assert isinstance(result, Success)
    deciding = [(r.key, r.max_tokens, r.cost) for r in explained.rules if r.effect == "decides"]
    watching = [
        (r.key, r.max_tokens, r.cost) for r in explained.rules if r.effect == "watches" and r.cost <= r.max_tokens
    ]
    asked = [limits(list(requests)) for requests in storage.asked]
    if explained.outcome == "checked":
        assert asked == [deciding, *([shadow] for shadow in watching)]
        return
    assert result.value.allowed == (explained.outcome == "allowed")
    if explained.outcome == "impossible":
        assert any(cost > r.max_tokens for r in explained.rules if r.effect == "decides")
    else:
        assert deciding == []
    assert asked == [[shadow] for shadow in watching]


def test_readings_of_the_path() -> None:
    """Which endpoints a path belongs to in which reading is told, and the rules of all of them on demand."""
    explainer = Explainer(take_snapshot(BOOK, KeyFormat(), NOON), KeyFormat(), lambda: NOON)
    client = {"ip": "192.0.2.1", "user": "alice"}
    plain = explainer.explain("GET /items/9", client)
    assert [(one.endpoint, one.reading) for one in plain.readings] == [("GET /items/{id}", "exact")]
    told = explainer.explain("GET //items/9", client)
    assert told.matched == "*"
    assert [(one.endpoint, one.reading) for one in told.readings] == [
        ("GET /items/{id}", "slashes merged"),
        ("*", "exact"),
    ]
    counted = explainer.explain("GET //items/9", client, every_reading=True)
    assert counted.matched == "GET /items/{id}"
    assert [rule.policy for rule in counted.rules] == ["ip-100-60s", "ip-600-60s", "global-9-1s"]
    assert explainer.explain("GET /items/{id}", client).readings == ()
    assert explainer.explain("send_mail", client).readings == ()
