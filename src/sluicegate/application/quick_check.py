"""The short ways of a check: plain arguments, and a storage that answers at once, always or while it knows of a denial.

They ask the same functions as the long way (`CheckFlow`), with no objects in between. Whatever is not plain, a wrong argument
and a failure included, is left to the long way.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Protocol, TypeAlias

from sluicegate.application.check import Check
from sluicegate.application.lists_and_overrides import listed_scopes
from sluicegate.domain.bucket_at_hand import DenialsAtHand, LoansAtHand
from sluicegate.domain.bucket_key import CERTAINLY_SHORT, KeyFormat
from sluicegate.domain.bucket_request import BucketRequest, Verdict
from sluicegate.domain.compiled_rules import CompiledRules, EndpointRules, Limit
from sluicegate.domain.decision import RateLimitResult
from sluicegate.domain.quick_take import build_recall, build_spend
from sluicegate.domain.result import Success
from sluicegate.domain.token_bucket import tightest, to_result

QuickCheck: TypeAlias = Callable[[str], Success[RateLimitResult] | None]
"""A check at a rule's own cost: identifier in; the answer, or None where the long way must be gone."""

QuickChecks: TypeAlias = Mapping[str, QuickCheck]
"""The short ways by the endpoint: one for each endpoint that a rule is for."""

MAX_REMEMBERED = 32_768
"""Most requests that are remembered, of all endpoints together."""

_ONE_IN = 8
"""Of so many checks that are not remembered one will be: who asks often is soon, and a crowd that asks once costs little."""


class HereStorage(Protocol):
    """A storage that decides some checks without asking anybody; see `StorageProtocol`.

    Args:
        denials_at_hand: What it knows of denials; None: nothing.
        loans_at_hand: What this process has borrowed.
    """

    denials_at_hand: DenialsAtHand | None
    loans_at_hand: LoansAtHand

    def decide_here(self, requests: Sequence[BucketRequest], /) -> Verdict | None:
        """Do it for any requests."""
        ...


class PlainChecks:
    """What plain checks ask for: always the same for a client, and naming its buckets takes longer than paying.

    Endpoints with rules in shadow mode are left out. Where there are lists or overrides, only identifiers that the long way
    found to be in none of them are plain.

    Args:
        rules: The rules in force.
        key_format: How buckets are named.
    """

    def __init__(self, rules: CompiledRules, key_format: KeyFormat) -> None:
        self.endpoints = tuple([endpoint_rules.endpoint for endpoint_rules in rules.plans])
        """All endpoints that a rule is for, plain or not."""
        self._plans = {
            endpoint_rules.endpoint: endpoint_rules
            for endpoint_rules in rules.plans
            if endpoint_rules.limits and not endpoint_rules.shadows
        }
        self._unknown = {endpoint: _unknown(rules, endpoint_rules) for endpoint, endpoint_rules in self._plans.items()}
        self._encode = key_format.encode
        self._remembered: dict[str, dict[str, Check]] = {endpoint: {} for endpoint in self._plans}
        self._room = MAX_REMEMBERED
        self._unremembered = 0
        self.finders = {endpoint: known.get for endpoint, known in self._remembered.items()}
        """By the endpoint: returns the check of an identifier, if it is remembered."""
        self.only_rules = {
            endpoint: endpoint_rules.limits[0].rule
            for endpoint, endpoint_rules in self._plans.items()
            if len(endpoint_rules.limits) == 1
        }
        """By the endpoint: the rule of a plain check that asks only one."""

    def of(self, endpoint: str, identifier: str) -> Check | None:
        """Work out what is asked for, and remember it now and then; None if the identifier is not plain."""
        requests = self.requests(endpoint, identifier)
        if requests is None:
            return None
        check = Check(self._plans[endpoint], requests, 0)
        self._unremembered = self._unremembered + 1 & _ONE_IN - 1
        if not self._unremembered:
            self._room -= len(requests)
            if self._room < 0:
                self._room = MAX_REMEMBERED - len(requests)
                for known in self._remembered.values():
                    known.clear()
            self._remembered[endpoint][identifier] = check
        return check

    def requests(self, endpoint: str, identifier: str) -> tuple[BucketRequest, ...] | None:
        """Work out what is asked for; None if the identifier is not plain."""
        if not 0 < len(identifier) <= CERTAINLY_SHORT:
            return None
        endpoint_rules = self._plans[endpoint]
        for unknown in self._unknown[endpoint]:
            if identifier not in unknown:
                return None
        name = self._encode(identifier)
        return tuple([_request(limit_, name) for limit_ in endpoint_rules.limits])

    def namer(self, endpoint: str) -> Callable[[str], str | None]:
        """Return what names the bucket of an identifier for the only rule of an endpoint; None if it is not plain."""
        (limit_,) = self._plans[endpoint].limits
        before, after, unknowns, encode = limit_.before, limit_.after, self._unknown[endpoint], self._encode

        def key_of(identifier: str) -> str | None:
            if not 0 < len(identifier) <= CERTAINLY_SHORT:
                return None
            for unknown in unknowns:
                if identifier not in unknown:
                    return None
            return before if after is None else f"{before}{encode(identifier)}{after}"

        return key_of

    def limits(self, endpoint: str) -> tuple[Limit, ...]:
        """Return the rules of an endpoint's plain checks; none if it has no such checks."""
        endpoint_rules = self._plans.get(endpoint)
        return () if endpoint_rules is None else endpoint_rules.limits

    def __len__(self) -> int:
        return sum(len(known) * len(self._plans[endpoint].limits) for endpoint, known in self._remembered.items())


def nothing_plain(_endpoint: str) -> None:
    """Know of no check."""


def no_quick_check(_identifier: str) -> None:
    """Leave a check to the long way."""


def build_here_checks(plain: PlainChecks, storage: HereStorage) -> QuickChecks:
    """Build the short ways to what a storage can decide without waiting: from a loan, or by a denial that it knows of.

    Args:
        plain: What is asked for.
        storage: The storage.
    """
    return {
        endpoint: _here_check(endpoint, plain, storage) if plain.limits(endpoint) else no_quick_check
        for endpoint in plain.endpoints
    }


def _here_check(endpoint: str, plain: PlainChecks, storage: HereStorage) -> QuickCheck:
    find, check_of = plain.finders[endpoint], plain.of
    decide_here = storage.decide_here
    keys: dict[str, str] = {}  # of single buckets that something was known of lately

    def here_check(identifier: str) -> Success[RateLimitResult] | None:
        check = find(identifier) or check_of(endpoint, identifier)
        verdict = None if check is None else decide_here(check.requests)
        if check is None or verdict is None:
            return None
        requests = check.requests
        if len(requests) != 1:
            return Success(tightest(requests, verdict))
        if len(keys) >= MAX_REMEMBERED:
            keys.clear()
        keys[identifier] = requests[0].key
        return Success(to_result(requests[0], verdict.levels[0], allowed=verdict.allowed))

    limits, denials = plain.limits(endpoint), storage.denials_at_hand
    if len(limits) != 1 or not limits[0].spec.units_per_second:
        return here_check
    spec, cost_units = limits[0].spec, limits[0].cost_units
    check = here_check if denials is None else build_recall(spec, cost_units, keys.get, denials, here_check)
    return build_spend(spec, cost_units, keys.get, storage.loans_at_hand, check) if limits[0].lease_units else check


def _request(limit_: Limit, name: str) -> BucketRequest:
    after = limit_.after
    return BucketRequest(
        limit_.before if after is None else limit_.before + name + after,
        limit_.spec,
        limit_.cost_units,
        limit_.lease_units,
    )


def _unknown(rules: CompiledRules, endpoint_rules: EndpointRules) -> tuple[set[str], ...]:
    """Return the sets that an identifier must be in to be known to be in no list and no override; they grow meanwhile."""
    scopes = listed_scopes(rules.lists, endpoint_rules) if rules.lists else ()
    indexes = [rules.lists.get(scope) for scope in scopes] + [limit_.overrides for limit_ in endpoint_rules.limits]
    return tuple(index.unknown for index in indexes if index is not None)
