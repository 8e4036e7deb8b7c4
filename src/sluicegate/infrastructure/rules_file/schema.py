"""The tables of a rules file: their fields and types. `interpreter` turns them into rules."""

from datetime import datetime
from typing import Annotated, Any, TypeAlias

import msgspec
from msgspec import UNSET, Meta, UnsetType

from sluicegate.domain.rules.rule import OnExpiry, OnStorageError

Rate: TypeAlias = Annotated[
    str, Meta(description="A rate: 5/minute, 100/hour burst 20, 5 per 10 seconds per user; or 4 in flight.")
]
Until: TypeAlias = Annotated[datetime, Meta(tz=True, description="When it ends, with a time zone.")]
Reason: TypeAlias = Annotated[str, Meta(description="Why, for people.", max_length=500)]


class Table(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True, omit_defaults=True):
    """The base of all tables of a rules file: immutable, and unknown fields are refused."""


class LimitTable(Table, frozen=True, kw_only=True):
    """A limit: a rate, the two numbers, or how many calls in flight."""

    rate: Rate | UnsetType = UNSET
    max_tokens: Annotated[int, Meta(description="Capacity, 1 to 10**12.")] | UnsetType = UNSET
    refill_rate: Annotated[float, Meta(description="Tokens per minute, above 0.")] | UnsetType = UNSET
    in_flight: Annotated[int, Meta(description="Calls at the same time, 1 to 10,000.")] | UnsetType = UNSET
    hold_seconds: (
        Annotated[float, Meta(description="How long a call in flight counts if nobody ends or renews it.")] | UnsetType
    ) = UNSET
    enabled: Annotated[bool, Meta(description="false: it does not count.")] | UnsetType = UNSET


class OverrideTable(LimitTable, frozen=True, kw_only=True):
    """Another limit for one identifier."""

    id: Annotated[str, Meta(description="Who: for scope ip an address or a network, else the exact text.")]
    until: Until | UnsetType = UNSET
    reason: Reason = ""


class RuleTable(LimitTable, frozen=True, kw_only=True):
    """A rule."""

    cost: Annotated[int, Meta(description="Tokens that one request takes.")] | UnsetType = UNSET
    scope: (
        Annotated[str, Meta(description="What to count by: ip, user, user_provider, global or your own.")] | UnsetType
    ) = UNSET
    on_storage_error: OnStorageError | UnsetType = UNSET
    shadow: Annotated[bool, Meta(description="true: it only observes.")] | UnsetType = UNSET
    lease: (
        Annotated[bool | int, Meta(description="Whether to lease tokens; a number: how many at most.")] | UnsetType
    ) = UNSET
    max_debt: (
        Annotated[int, Meta(description="Tokens below zero that a reservation may bring the bucket.")] | UnsetType
    ) = UNSET
    on_expiry: (
        Annotated[OnExpiry, Meta(description="What becomes of a reservation that nobody settles.")] | UnsetType
    ) = UNSET


class PolicyTable(RuleTable, frozen=True, kw_only=True):
    """A named rule."""

    overrides: list[OverrideTable] = []


RuleText: TypeAlias = Annotated[str, Meta(description="The name of a policy, or a rate.")]
RuleList: TypeAlias = RuleText | RuleTable | list[RuleText | RuleTable]


class EndpointTable(RuleTable, frozen=True, kw_only=True):
    """An endpoint's rules and its own settings; or one rule, if there is no field `rules`."""

    rules: RuleList | UnsetType = UNSET
    replaces_code: Annotated[bool, Meta(description="true: these rules win over those declared in code.")] = False


class GroupTable(Table, frozen=True, kw_only=True):
    """Endpoints that share their buckets."""

    rules: RuleList
    endpoints: Annotated[list[str], Meta(min_length=1)]


class DefaultsTable(Table, frozen=True, kw_only=True):
    """What rules are that do not say otherwise."""

    scope: str | UnsetType = UNSET
    on_storage_error: OnStorageError | UnsetType = UNSET
    shadow: bool | UnsetType = UNSET
    lease: bool | int | UnsetType = UNSET


class ListingTable(Table, frozen=True, kw_only=True):
    """An entry of a list with an end or a reason."""

    id: str
    until: Until | UnsetType = UNSET
    reason: Reason = ""


Listings: TypeAlias = Annotated[
    dict[str, list[str | ListingTable]], Meta(description="Scopes, and who of each: addresses and networks for ip.")
]


class KillSwitchTable(Table, frozen=True, kw_only=True):
    """What is switched off, until when, and why."""

    policies: Annotated[list[str], Meta(description="Names of policies; none: everything.")] = []
    until: Until | UnsetType = UNSET
    reason: Reason = ""


class RuleFileTable(Table, frozen=True, kw_only=True):
    """A rules file."""

    defaults: DefaultsTable = DefaultsTable()
    policies: dict[str, Rate | PolicyTable] = {}
    endpoints: dict[str, RuleText | list[RuleText | RuleTable] | EndpointTable] = {}
    groups: dict[str, GroupTable] = {}
    unmatched: RuleList | UnsetType = UNSET
    allow: Listings = {}
    deny: Listings = {}
    kill_switch: bool | KillSwitchTable | list[KillSwitchTable] = False


def json_schema() -> dict[str, Any]:
    """Return the JSON Schema (draft 2020-12) of a rules file, for editors and other tools."""
    (schema,), components = msgspec.json.schema_components((RuleFileTable,), ref_template="#/$defs/{name}")
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Sluicegate rules file",
        **schema,
        "$defs": components,
    }
