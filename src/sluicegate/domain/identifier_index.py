"""Finding what is said about one identifier among very many entries: by its text, or for addresses by the longest prefix.

The prefix tree is py-radix, whose lookup takes the same time for ten entries as for a hundred thousand. It comes with the
extra `sluicegate[rules]` and is imported when the first address is indexed.
"""

from collections.abc import Callable, Iterable
from datetime import datetime
from importlib import import_module
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import Any, Generic, Protocol, TypeAlias, TypeVar, cast

from sluicegate.domain.errors import InvalidInputError
from sluicegate.domain.rule import RateLimitScope

Now: TypeAlias = Callable[[], datetime]
"""How to learn the wall clock's instant; called only where an entry that matches has an end."""


_MAPPED_BITS = 96
_MAX_UNKNOWN = 65_536  # identifiers; some 6 MB as a rule, at most 64 MB of hostile ones


class Entry(Protocol):
    """What can be indexed."""

    @property
    def identifier(self) -> str:
        """Whom it is about: a text, or for the scope `ip` an address or a network."""
        ...

    @property
    def until(self) -> datetime | None:
        """When it stops to hold; None: never."""
        ...


E = TypeVar("E", bound=Entry)


class IdentifierIndex(Generic[E]):
    """Look up the entry that holds for an identifier.

    Args:
        scope: Whose identifiers these are; those of `ip` are addresses and networks (CIDR).
        entries: The entries, no two of them for the same identifier.

    Raises:
        InvalidInputError: If an address is not one, or two entries are for the same identifier.
    """

    __slots__ = ("_by_text", "_tree", "unknown")

    def __init__(self, scope: str, entries: Iterable[E]) -> None:
        self._by_text: dict[str, E] = {}
        self._tree: Any = None
        self.unknown: set[str] = set()
        """Some identifiers that no entry is for. Entries end but never begin, so this stays true."""
        if scope == RateLimitScope.IP:
            self._tree = _radix()
            for entry in entries:
                network = read_network(entry.identifier)
                node = self._tree.add(packed=network.network_address.packed, masklen=network.prefixlen)
                if "entry" in node.data:
                    raise InvalidInputError(f"{entry.identifier!r}: listed twice")
                node.data["entry"] = entry
        else:
            for entry in entries:
                if self._by_text.setdefault(entry.identifier, entry) is not entry:
                    raise InvalidInputError(f"{entry.identifier!r}: listed twice")

    def find(self, identifier: str, now: Now) -> E | None:
        """Return the entry that holds for an identifier now; of several networks, the smallest that has not ended."""
        if identifier in self.unknown:
            return None
        if self._tree is None:
            entry = self._by_text.get(identifier)
            if entry is None:
                self._remember_unknown(identifier)
                return None
            return entry if _holds(entry, now) else None
        wanted = _packed(identifier)
        node = None if wanted is None else self._tree.search_best(packed=wanted[0], masklen=wanted[1])
        if wanted is None or node is None:
            self._remember_unknown(identifier)
            return None
        entry = cast("E", node.data["entry"])
        if _holds(entry, now):
            return entry
        covering = self._tree.search_covering(packed=wanted[0], masklen=wanted[1])
        return next((node.data["entry"] for node in covering if _holds(node.data["entry"], now)), None)

    def _remember_unknown(self, identifier: str) -> None:
        if len(self.unknown) >= _MAX_UNKNOWN:
            self.unknown.clear()
        self.unknown.add(identifier)


def read_network(text: str) -> IPv4Network | IPv6Network:
    """Read an address or a network in CIDR notation.

    Raises:
        InvalidInputError: If the text is neither, or a network's address has bits that its prefix leaves out.
    """
    try:
        return _unmapped(ip_network(text))
    except ValueError:
        pass
    try:
        loose = ip_network(text, strict=False)
    except ValueError:
        raise InvalidInputError(f"{text!r:.80}: expected an address or a network such as '192.0.2.0/24'") from None
    raise InvalidInputError(f"{text!r}: has bits set outside its prefix; did you mean '{loose}'?")


def _unmapped(network: IPv4Network | IPv6Network) -> IPv4Network | IPv6Network:
    """Return the IPv4 network that an IPv4-mapped one (RFC 4291, `::ffff:0:0/96`) stands for."""
    mapped = network.network_address.ipv4_mapped if isinstance(network, IPv6Network) else None
    if mapped is None or network.prefixlen < _MAPPED_BITS:
        return network
    return IPv4Network((mapped, network.prefixlen - _MAPPED_BITS))


def _packed(identifier: str) -> tuple[bytes, int] | None:
    """Return an identifier's bytes and prefix length; None if it is no address. IPv6 clients may be known by their /64."""
    try:
        if "/" in identifier:
            network = _unmapped(ip_network(identifier, strict=False))
            return network.network_address.packed, network.prefixlen
        address: IPv4Address | IPv6Address = ip_address(identifier)
    except ValueError:
        return None
    if isinstance(address, IPv6Address):
        address = address.ipv4_mapped or address
    return address.packed, address.max_prefixlen


def _holds(entry: Entry, now: Now) -> bool:
    return entry.until is None or now() < entry.until


def _radix() -> Any:  # noqa: ANN401 - py-radix ships no types
    try:
        return import_module("radix").Radix()
    except ImportError:
        raise InvalidInputError("addresses in lists and overrides need py-radix: install sluicegate[rules]") from None
