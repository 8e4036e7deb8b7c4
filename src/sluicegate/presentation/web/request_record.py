"""What limiters have decided about a request so far. It travels with the request, so that nested ones know of each other."""

from collections.abc import Callable, Mapping, MutableMapping
from typing import Any, Final, Protocol

from sluicegate.application.check import Decision
from sluicegate.domain.arguments import Identifier
from sluicegate.domain.rules.compiled_rules import Keys
from sluicegate.domain.rules.rule import RateLimitRule
from sluicegate.infrastructure.memory_storage import MemoryStorage
from sluicegate.presentation.web.headers import Headers
from sluicegate.presentation.web.request_claims import RequestClaims

RECORD: Final = "sluicegate.record"
"""Where it is kept: in ASGI's scope, or in the environment of WSGI."""


_MAX_REPORTED: Final = 1_000
_reported: Final[set[str]] = set()


class _KnowsRules(Protocol):
    def rules_of(self, endpoint: str, /) -> tuple[RateLimitRule, ...]: ...

    def keys_of(self, endpoint: str, /) -> Keys: ...


class RecordEntry:
    """One decision.

    Args:
        limiter: Who decided.
        rules: The rules that it asked.
        endpoint: The endpoint whose rules were asked.
        also: Others whose rules were asked with them.
        identifier: The client, as they count it.
        cost: Tokens; 0: the rules' own cost.
        decision: The decision.
        fields: What the client is told of it.
    """

    __slots__ = ("also", "cost", "decision", "endpoint", "fields", "identifier", "limiter", "rules", "sent")

    def __init__(  # noqa: PLR0913, PLR0917 - what a check is
        self,
        limiter: object,
        rules: _KnowsRules,
        endpoint: str,
        also: tuple[str, ...],
        identifier: Identifier,
        cost: int,
        decision: Decision,
        fields: Headers,
    ) -> None:
        self.limiter = limiter
        self.rules = rules
        self.endpoint = endpoint
        self.also = also
        self.identifier = identifier
        self.cost = cost
        self.decision = decision
        self.fields = fields
        self.sent = False

    def answers(  # noqa: PLR0913, PLR0917 - what a check is
        self,
        limiter: object,
        rules: _KnowsRules,
        endpoint: str,
        also: tuple[str, ...],
        identifier: Identifier,
        cost: int,
    ) -> bool:
        """Return whether a check would ask the same again: the same rules, of a limiter with the same kind of storage."""
        if self.endpoint != endpoint or self.also != also or self.identifier != identifier or self.cost != cost:
            return False
        if limiter is self.limiter:
            return True
        return (
            type(limiter) is type(self.limiter)
            and bool(self.decision.rules)
            and rules.rules_of(endpoint) == self.rules.rules_of(endpoint)
            and kind_of_storage(limiter) is kind_of_storage(self.limiter)
        )

    def collides_with(self, other: "RecordEntry") -> bool:
        """Return whether another limiter counts another rule in a bucket of the same name, which may be the same one."""
        if self.limiter is other.limiter or kind_of_storage(self.limiter) is not kind_of_storage(other.limiter):
            return False
        if kind_of_storage(self.limiter) is MemoryStorage:  # each has its own
            return False
        theirs = other.rules.keys_of(other.endpoint)
        for key, rule in self.rules.keys_of(self.endpoint).items():
            there = theirs.get(key)
            if there is not None and there.spec.text != rule.spec.text:
                return True
        return False


class RequestRecord:
    """The decisions about one request, in their order."""

    __slots__ = ("claims", "entries", "is_settled", "is_told")

    def __init__(self) -> None:
        self.entries: list[RecordEntry] = []
        self.is_told = False
        """Whether somebody further outside will add to the response what the client is still to be told."""
        self.is_settled = False
        """Whether somebody further outside sees the answer, and settles what is claimed."""
        self.claims: RequestClaims | None = None
        """What is reserved and held for the request, if anything may be."""

    def add(self, entry: RecordEntry, report: Callable[[str], None]) -> None:
        """Add a decision; report, once for each endpoint, if two limiters spoil each other's buckets by it."""
        if self.entries and entry.endpoint not in _reported and len(_reported) < _MAX_REPORTED:
            for other in self.entries:
                if entry.collides_with(other):
                    _reported.add(entry.endpoint)
                    report(
                        f"Two limiters count different rules for {entry.endpoint!r} in buckets of the same name; if their"
                        " storage is the same, give one of them another key_prefix, or both rules to one limiter."
                    )
                    break
        self.entries.append(entry)

    def enter(self) -> int:
        """Note that a limiter sees the answer, and return how many claims one further outside will settle, as its own."""
        if not self.is_settled:
            self.is_settled = True
            return 0
        return 0 if self.claims is None else len(self.claims.claims)

    def claims_to_settle(self) -> RequestClaims:
        """Return what is reserved and held, from now on."""
        if self.claims is None:
            self.claims = RequestClaims()
        return self.claims

    def fields_to_send(self) -> Headers:
        """Return what the client is still to be told; the limiter that is closest to the application comes first."""
        fields: Headers = ()
        for entry in reversed(self.entries):
            if not entry.sent:
                entry.sent = True
                fields += entry.fields
        return fields

    def told(self, decision: Decision) -> None:
        """Note that the client is told of a decision, in the answer to a denied request."""
        for entry in self.entries:
            if entry.decision is decision:
                entry.sent = True


def record_in(notes: MutableMapping[str, Any]) -> RequestRecord:
    """Return what limiters have decided about a request so far."""
    record: RequestRecord | None = notes.get(RECORD)
    if record is None:
        record = notes[RECORD] = RequestRecord()
    return record


def claims_in(notes: Mapping[str, Any] | None) -> RequestClaims | None:
    """Return what is reserved and held for a request; None if nothing may be."""
    record: RequestRecord | None = None if notes is None else notes.get(RECORD)
    return None if record is None else record.claims


def is_list(name: str) -> bool:
    """Return whether the values of two limiters in a field are one list (RFC 9651)."""
    return name.startswith("ratelimit")


def kind_of_storage(limiter: object) -> type:
    """Return the class of a limiter's storage: two on a server have the same buckets, and two in memory count alike."""
    storage: object = getattr(limiter, "storage", None)
    return type(storage)
