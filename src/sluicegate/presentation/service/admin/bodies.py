"""What callers of the admin API send, and what they are answered."""

from typing import Annotated, Any

import msgspec
from msgspec import Meta

from sluicegate.application.rules.operator_changes import OverrideState, SwitchState


class Body(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The base of all bodies: immutable, and unknown fields are refused."""


class BucketBody(Body, frozen=True, kw_only=True):
    """Which buckets are meant.

    Args:
        endpoint: The endpoint as the rules name it, such as `POST /login`, or `edge:user` for a descriptor.
        identifier: The client: one text, or one for each scope.
        cost: Tokens; 0: the rules' own cost.
    """

    endpoint: str
    identifier: str | dict[str, str]
    cost: Annotated[int, Meta(ge=0, le=10**12)] = 0


class SwitchBody(Body, frozen=True, kw_only=True):
    """A kill switch.

    Args:
        policy: The name of the rule; empty: everything.
        for_seconds: After how many seconds it ends; None: not by itself.
        reason: Why, for people.
    """

    policy: str = ""
    for_seconds: float | None = None
    reason: Annotated[str, Meta(max_length=500)] = ""


class OverrideBody(Body, frozen=True, kw_only=True):
    """Another limit for one identifier.

    Args:
        policy: The name of the rule that it replaces.
        identifier: An address or a network if the rule counts addresses, else the exact text.
        rate: The limit, such as `100/minute burst 20`; empty: no limit.
        for_seconds: After how many seconds it ends.
        reason: Why, for people.
    """

    policy: str
    identifier: str
    rate: str = ""
    for_seconds: Annotated[float, Meta(gt=0, le=366 * 86_400)]
    reason: Annotated[str, Meta(max_length=500)] = ""


class OverrideKey(Body, frozen=True, kw_only=True):
    """Which override is meant."""

    policy: str
    identifier: str


class Done(msgspec.Struct, frozen=True):
    """Whether a call was carried out.

    Args:
        done: Whether it was.
        reason: Why not, in one word; None if it was.
        message: The same, for people; or what was done.
    """

    done: bool
    reason: str | None = None
    message: str = ""


class State(msgspec.Struct, frozen=True):
    """What operators changed while the service runs.

    Args:
        thrown: The kill switches that they threw.
        overrides: The overrides that they added.
    """

    thrown: list[SwitchState]
    overrides: list[OverrideState]


class RulesState(msgspec.Struct, frozen=True):
    """The rules in force.

    Args:
        version: Their version.
        changes: How often others came into force.
        refusals: How often rules were refused.
        last_error: Why, the last time; empty once others came into force.
        switched_off: The kill switches.
        overrides: The overrides that were added while it runs.
        rules: The rules as they were written.
    """

    version: str
    changes: int
    refusals: int
    last_error: str
    switched_off: list[SwitchState]
    overrides: list[OverrideState]
    rules: dict[str, Any]
