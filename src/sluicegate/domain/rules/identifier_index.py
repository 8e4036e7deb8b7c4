"""Find the entry for an identifier among very many: by exact text, or for addresses by the longest matching network.

Networks are held in py-radix, whose lookup takes the same time for ten entries as for a hundred thousand. It comes with the
extra `sluicegate[rules]` and is imported when the first address is indexed.
"""

from collections import OrderedDict
from collections.abc import Callable, Iterable
from datetime import datetime
from importlib import import_module
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network
from typing import Any, Generic, Protocol, TypeAlias, TypeVar, cast

from sluicegate.domain.errors import InvalidInputError
from sluicegate.domain.rules.embedded_ipv4 import network_without_wrapping, without_wrapping
from sluicegate.domain.rules.rule import RateLimitScope

WallClock: TypeAlias = Callable[[], datetime]
"""Returns the current date and time with a time zone. Called only when a matching entry has an end."""

# Together at most 28 MB, if every cached text has 64 characters of four bytes.
_MAX_CACHED = 65_536
_MAX_CACHED_CHARACTERS = 64


class Entry(Protocol):
    """What can be indexed."""

    @property
    def identifier(self) -> str:
        """The identifier: a text, or for the scope `ip` an address or a network."""
        ...

    @property
    def until(self) -> datetime | None:
        """When the entry ends; None: never."""
        ...


E = TypeVar("E", bound=Entry)


class IdentifierIndex(Generic[E]):
    """Look up the entry for an identifier.

    Args:
        scope: The scope of the identifiers; those of `ip` are addresses and networks (CIDR).
        entries: The entries, no two of them for the same identifier.

    Raises:
        InvalidInputError: If an address is invalid, or two entries are for the same identifier.
    """

    __slots__ = ("_by_text", "_entries", "_scope", "_tree", "_unknown")

    def __init__(self, scope: str, entries: Iterable[E]) -> None:
        self._scope = scope
        self._entries = tuple(entries)
        self._by_text: dict[str, E] = {}
        self._tree: Any = None
        self._unknown: OrderedDict[str, None] = OrderedDict()
        """Recent identifiers without an entry, for the scope `ip`: parsing an address takes longer than the lookup.

        Entries end but never begin, so an identifier without one never gets one.
        """
        if scope == RateLimitScope.IP:
            self._tree = _new_tree()
            for entry in self._entries:
                network = read_network(entry.identifier)
                node = self._tree.add(packed=network.network_address.packed, masklen=network.prefixlen)
                if "entry" in node.data:
                    raise InvalidInputError(f"{entry.identifier!r}: listed twice")
                node.data["entry"] = entry
        else:
            for entry in self._entries:
                if self._by_text.setdefault(entry.identifier, entry) is not entry:
                    raise InvalidInputError(f"{entry.identifier!r}: listed twice")

    def __reduce__(self) -> tuple[type["IdentifierIndex[E]"], tuple[str, tuple[E, ...]]]:
        # Compiled classes cannot be copied or pickled attribute by attribute.
        return IdentifierIndex, (self._scope, self._entries)

    def find(self, identifier: str, now: WallClock) -> E | None:
        """Return the entry for an identifier; of several networks, the smallest that has not ended.

        Args:
            identifier: A text, or an address or network for the scope `ip`. A text that is no address has no entry there.
            now: The clock that entries end by.

        Returns:
            The entry; None if there is none or it has ended.
        """
        if self._tree is None:
            entry = self._by_text.get(identifier)
            return entry if entry is not None and _has_not_ended(entry, now) else None
        if identifier in self._unknown:
            return None
        packed = _packed(identifier)
        node = None if packed is None else self._tree.search_best(packed=packed[0], masklen=packed[1])
        if packed is None or node is None:
            self._cache_unknown(identifier)
            return None
        entry = cast("E", node.data["entry"])
        if _has_not_ended(entry, now):
            return entry
        for node in self._tree.search_covering(packed=packed[0], masklen=packed[1]):
            entry = cast("E", node.data["entry"])
            if _has_not_ended(entry, now):
                return entry
        return None

    def _cache_unknown(self, identifier: str) -> None:
        if len(identifier) > _MAX_CACHED_CHARACTERS:
            return
        if len(self._unknown) >= _MAX_CACHED:
            self._unknown.popitem(last=False)  # one, for all of them at once would take milliseconds
        self._unknown[identifier] = None


def read_network(text: str) -> IPv4Network | IPv6Network:
    """Parse an address or a network in CIDR notation.

    Raises:
        InvalidInputError: If the text is neither, or a network's address has bits set outside its prefix.
    """
    try:
        return network_without_wrapping(ip_network(text))
    except ValueError:
        pass
    try:
        loose = ip_network(text, strict=False)
    except ValueError:
        raise InvalidInputError(f"{text!r:.80}: expected an address or a network such as '192.0.2.0/24'") from None
    raise InvalidInputError(f"{text!r}: has bits set outside its prefix; did you mean '{loose}'?")


def _packed(identifier: str) -> tuple[bytes, int] | None:
    """Return an address's bytes and prefix length; None if the text is no address.

    It may be a network: the middleware counts IPv6 clients by their /64.
    """
    try:
        if "/" in identifier:
            network = network_without_wrapping(ip_network(identifier, strict=False))
            return network.network_address.packed, network.prefixlen
        address = without_wrapping(ip_address(identifier))
    except ValueError:
        return None
    return address.packed, address.max_prefixlen


def _has_not_ended(entry: Entry, now: WallClock) -> bool:
    return entry.until is None or now() < entry.until


def _new_tree() -> Any:  # noqa: ANN401 - py-radix ships no types
    try:
        return import_module("radix").Radix()
    except ImportError:
        raise InvalidInputError("addresses in lists and overrides need py-radix: install sluicegate[rules]") from None
