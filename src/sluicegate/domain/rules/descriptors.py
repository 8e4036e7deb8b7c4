"""Descriptors of the Envoy rate limit protocol, and the tree of limits that they are matched with.

A descriptor is an ordered path of entries. It is walked down the tree of its domain, one level for each entry: at each level
an entry's key and value are looked up, then the patterns for its key in their order, then the key alone. There is no way back,
and only a limit at the last entry counts: a path that ends elsewhere has none.
"""

import re
from collections.abc import Mapping, Sequence
from hashlib import blake2b
from typing import Final, TypeAlias

import msgspec

Entry: TypeAlias = tuple[str, str]
"""One step of a descriptor: a key, and a value, which may be empty."""

SCOPE: Final = "descriptor"
"""The scope of rules that count descriptors."""

MAX_IDENTIFIER_BYTES: Final = 512
"""The longest descriptor that keys carry as text; a longer one is counted by its hash."""

_SPECIAL: Final = re.compile(r"[%,=# \x00-\x1f\x7f]")
_SPECIAL_IN_DOMAIN: Final = re.compile(r"[%,=#:/ \x00-\x1f\x7f]")


class Window(msgspec.Struct, frozen=True):
    """A limit as operators write it and clients are told it: so many requests in so many units of time.

    Args:
        requests: The number of requests; 0: everything is denied.
        unit: `second`, `minute`, `hour`, `day`, `week`, `month` or `year`; empty: no limit.
        multiplier: How many units.
        name: The limit's name; empty: none.
    """

    requests: int
    unit: str
    multiplier: int = 1
    name: str = ""


class DescriptorLimit(msgspec.Struct, frozen=True, kw_only=True):
    """What a node of the tree says.

    Args:
        endpoint: The name of its rule in the rule book; no rule has it if the limit is `unlimited` or 0 requests.
        window: The limit; its name is also that by which others replace it.
        replaces: Names of limits that do not count for a request that this one matches.
        unlimited: Whether everything passes uncounted.
        shadow: Whether it only observes.
        owes: Whether hits are charged after the fact: more than is left becomes debt, and only a look can be denied.
    """

    endpoint: str
    window: Window
    replaces: frozenset[str] = frozenset()
    unlimited: bool = False
    shadow: bool = False
    owes: bool = False


class ValuePattern(msgspec.Struct, frozen=True):
    """A value with `*` in it, each of which stands for any number of characters.

    Args:
        text: The pattern.
        shared: Whether all values that fit it share one bucket.
    """

    text: str
    shared: bool = False

    def fits(self, value: str) -> bool:
        """Return whether a value fits, in time proportional to its length for each part of the pattern."""
        first, *middle, last = self.text.split("*")
        if len(value) < len(first) + len(last) or not value.startswith(first) or not value.endswith(last):
            return False
        at, end = len(first), len(value) - len(last)
        for part in middle:
            found = value.find(part, at, end)
            if found < 0:
                return False
            at = found + len(part)
        return True


class DescriptorNode(msgspec.Struct, kw_only=True):
    """One place in the tree.

    Args:
        limit: What counts a descriptor that ends here; None: nothing.
        values: The nodes below by key and value.
        patterns: The nodes below whose value is a pattern, by key, in the file's order.
        keys: The nodes below that any value leads to, by key.
    """

    limit: DescriptorLimit | None = None
    values: dict[Entry, "DescriptorNode"] = {}
    patterns: dict[str, list[tuple[ValuePattern, "DescriptorNode"]]] = {}
    keys: dict[str, "DescriptorNode"] = {}

    def step(self, key: str, value: str) -> "tuple[DescriptorNode, str] | None":
        """Return the node that an entry leads to, and the value that its bucket is named with; None if there is none."""
        node = self.values.get((key, value)) if self.values else None
        if node is not None:
            return node, value
        for pattern, below in self.patterns.get(key, ()) if self.patterns else ():
            if pattern.fits(value):
                return below, pattern.text if pattern.shared else value
        node = self.keys.get(key)
        return None if node is None else (node, value)

    def match(self, entries: Sequence[Entry]) -> tuple[DescriptorLimit, str] | None:
        """Return the limit of a descriptor, and the identifier that its rule counts; None if it has no limit.

        Args:
            entries: The descriptor's entries, at least one.
        """
        node = self
        named: list[Entry] = []
        for key, value in entries:
            found = node.step(key, value)
            if found is None:
                return None
            node, name = found
            named.append((key, name))
        return None if node.limit is None else (node.limit, identifier_of(named))


Domains: TypeAlias = Mapping[str, DescriptorNode]
"""The trees of descriptors, by domain."""


def identifier_of(entries: Sequence[Entry]) -> str:
    """Return the text that a descriptor is counted by, such as `user=alice,path=/login`: different for different entries.

    One longer than 512 bytes becomes a `#` and its BLAKE2b hash (RFC 7693): a long value must not pass uncounted.
    """
    text = ",".join([f"{_escaped(key)}={_escaped(value)}" for key, value in entries])
    if len(text) > MAX_IDENTIFIER_BYTES // 4:
        data = text.encode("utf-8", "surrogatepass")
        if len(data) > MAX_IDENTIFIER_BYTES:
            return f"#{blake2b(data, digest_size=32).hexdigest()}"
    return text


def endpoint_of(domain: str, steps: Sequence[Entry]) -> str:
    """Return the endpoint that a node's rule is for, such as `edge:user,path=/login`.

    Args:
        domain: The domain.
        steps: The way to the node: keys, and values as the operator wrote them; empty: any value.
    """
    path = ",".join([f"{_escaped(key)}={_escaped(value)}" if value else _escaped(key) for key, value in steps])
    return f"{_SPECIAL_IN_DOMAIN.sub(_escape, domain)}:{path}"


def override_endpoint(domain: str) -> str:
    """Return the endpoint of descriptors that bring their limit with them; no node of the tree has it."""
    return f"{_SPECIAL_IN_DOMAIN.sub(_escape, domain)}:#override"


def _escaped(text: str) -> str:
    return _SPECIAL.sub(_escape, text) if _SPECIAL.search(text) else text


def _escape(match: re.Match[str]) -> str:
    return f"%{ord(match[0]):02X}"
