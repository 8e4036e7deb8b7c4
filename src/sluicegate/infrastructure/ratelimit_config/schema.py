"""The tables of a configuration of `envoyproxy/ratelimit`: its fields, and `unit_multiplier`, `burst` and `max_debt`."""

from typing import Annotated

import msgspec
from msgspec import Meta


class ConfigTable(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The base of all tables: immutable, and unknown fields are refused."""


class ReplacesTable(ConfigTable, frozen=True, kw_only=True):
    """A limit that does not count beside this one."""

    name: str = ""


class RateLimitTable(ConfigTable, frozen=True, kw_only=True):
    """A limit."""

    requests_per_unit: Annotated[int, Meta(ge=0, le=2**32 - 1)] = 0
    unit: str = ""
    unlimited: bool = False
    name: str = ""
    replaces: list[ReplacesTable] = []
    unit_multiplier: Annotated[int, Meta(ge=1, le=2**31)] = 1
    burst: Annotated[int, Meta(ge=0, le=2**32 - 1)] = 0
    max_debt: Annotated[int, Meta(ge=1, le=2**32 - 1)] | None = None


class DescriptorTable(ConfigTable, frozen=True, kw_only=True):
    """A node of the tree."""

    key: str = ""
    value: str = ""
    rate_limit: RateLimitTable | None = None
    descriptors: "list[DescriptorTable]" = []
    shadow_mode: bool = False
    quota_mode: bool = False
    detailed_metric: bool = False
    value_to_metric: bool = False
    share_threshold: bool = False
    metadata: dict[str, object] = {}


class DomainTable(ConfigTable, frozen=True, kw_only=True):
    """A file."""

    domain: str = ""
    descriptors: list[DescriptorTable] = []
