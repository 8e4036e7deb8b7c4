"""The client's address: the peer's, or the one that trusted proxies tell."""

import re
from collections.abc import Iterable, Sequence
from ipaddress import ip_address, ip_network
from typing import Final, Literal, SupportsIndex, TypeAlias, get_args

from mypy_extensions import mypyc_attr

from sluicegate.domain.errors import InvalidInputError, InvalidTypeError
from sluicegate.domain.rules.embedded_ipv4 import PREFIXES, Address, Network, network_without_wrapping, without_wrapping

ForwardedHeader: TypeAlias = Literal["x-forwarded-for", "forwarded", "x-real-ip", "cf-connecting-ip", "true-client-ip"]
"""The header in which trusted proxies name their clients: a list, or one address (`x-real-ip`, `cf-connecting-ip`,
`true-client-ip`). Only one: a proxy that writes one passes on the others as they came."""

UNIX: Final = "unix"
"""Among the trusted proxies: a peer on a Unix socket, which has no address."""

_LISTS: Final = ("x-forwarded-for", "forwarded")  # the others hold one address
_MAX_HOPS: Final = 64
_MAX_CACHED = 4096  # texts whose addresses are kept
_LONGEST = 80  # characters of an address with brackets, zone and port
_ADDRESS = re.compile(r"\[([^\[\]]{2,64})\](?::[0-9]{1,5})?|([0-9.]{7,15})(?::[0-9]{1,5})?|([0-9A-Fa-f:.%\w]{2,64})")


class _Known:
    """What a text says of an address.

    Args:
        client: The address, or its network where the prefix is shorter; None if the text is no address.
        trusted: Whether it is a trusted proxy's.
        local: Whether it is not routed on the Internet.
    """

    __slots__ = ("client", "local", "trusted")

    def __init__(self, client: str | None, *, trusted: bool, local: bool) -> None:
        self.client = client
        self.trusted = trusted
        self.local = local


@mypyc_attr(allow_interpreted_subclasses=True)
class ClientAddresses:
    """Find the address that a request came from, and the network that counts as one client.

    Args:
        trusted_proxies: Networks (`10.0.0.0/8`) or addresses of proxies whose header is believed, and `unix` for peers on a
            Unix socket. Empty: the peer is the client.
        header: The header in which they name their clients.
        trusted_hops: How many proxies a request passes, where the addresses of those behind the peer are not known: the client is
            this many entries from the right. 0: the walk goes over all that are trusted.
        ipv4_prefix: Bits of an IPv4 address that tell clients apart, 8 to 32.
        ipv6_prefix: Bits of an IPv6 address that do, 16 to 128. A subscriber has at least a /64.

    Raises:
        InvalidInputError: If an argument is wrong, or a network contains every address.
    """

    def __init__(
        self,
        trusted_proxies: Iterable[str] = (),
        *,
        header: ForwardedHeader = "x-forwarded-for",
        trusted_hops: SupportsIndex = 0,
        ipv4_prefix: SupportsIndex = 32,
        ipv6_prefix: SupportsIndex = 64,
    ) -> None:
        if header not in get_args(ForwardedHeader):
            raise InvalidInputError(
                f"forwarded_header={header!r}: expected one of {', '.join(get_args(ForwardedHeader))}"
            )
        if isinstance(trusted_proxies, str):
            raise InvalidTypeError(f"trusted_proxies={trusted_proxies!r}: expected several networks, not one text")
        self._prefixes = {
            4: _require_prefix("ipv4_prefix", ipv4_prefix, 8, 32),
            6: _require_prefix("ipv6_prefix", ipv6_prefix, 16, 128),
        }
        proxies: tuple[object, ...] = tuple(trusted_proxies)
        self._trusts_unix = UNIX in proxies
        self._hops = _require_hops(trusted_hops, header, proxies)
        self._names_one = header not in _LISTS
        self._networks = tuple([_network(proxy) for proxy in proxies if proxy != UNIX])
        self._previous_hop = _previous_forwarded if header == "forwarded" else _previous_plain
        self._cache: dict[str, _Known] = {}
        self.header: ForwardedHeader = header
        """The header in which proxies name their clients."""
        self.trusts_proxies = bool(proxies)
        """Whether any proxy is trusted. If not, the header need not be read."""

    def client(self, peer: str | None, lines: Sequence[str] = ()) -> str | None:
        """Return the client, as rules count it.

        In a list each hop was written by the one to its right. The first from the right that is no trusted proxy is the client,
        or the last of `trusted_hops`; the client wrote what is left of it. At a hop that is no address the walk stops at the
        proxy that wrote it. A header with one address names the client if there is one line of it, and that is an address;
        if not, the peer is the client.

        Args:
            peer: The address at the other end of the connection; None or empty for a Unix socket. A peer that the server names
                in another way is returned as it is.
            lines: The header's lines in their order.

        Returns:
            An address, or a network where its prefix is shorter; None if it cannot be known.
        """
        client: str | None = None
        trusted = self._trusts_unix
        if peer:
            known = self._known(peer)
            if known.client is None:
                return peer
            client, trusted = known.client, known.trusted
        if not trusted:
            return client
        if self._names_one:
            named = self._known(lines[0].strip()).client if len(lines) == 1 else None
            return client if named is None else named
        return self._walk(client, ",".join(lines))

    def trusts(self, peer: str | None) -> bool:
        """Return whether a peer is a trusted proxy."""
        return self._known(peer).trusted if peer else self._trusts_unix

    def is_local(self, peer: str | None) -> bool:
        """Return whether a peer may be a proxy in front: on a Unix socket, or at an address that is not public."""
        return self._known(peer).local if peer else True

    def _walk(self, client: str | None, rest: str) -> str | None:
        for _ in range(self._hops or _MAX_HOPS):
            if not rest:
                break
            rest, hop = self._previous_hop(rest)
            known = self._known(hop.strip())
            if known.client is None:
                break
            client = known.client
            if not self._hops and not known.trusted:
                break
        return client

    def _known(self, text: str) -> _Known:
        known = self._cache.get(text)
        if known is None:
            known = self._look_up(text)
            if len(text) <= _LONGEST:  # a client's header may be of any length, and is not kept
                if len(self._cache) >= _MAX_CACHED:
                    self._cache.clear()
                self._cache[text] = known
        return known

    def _look_up(self, text: str) -> _Known:
        address = _parse(text)
        if address is None:
            return _Known(None, trusted=False, local=False)
        trusted = any(address in network for network in self._networks)
        local = address.is_private or address.is_loopback
        prefix = self._prefixes[address.version]
        if prefix == address.max_prefixlen:
            return _Known(str(address), trusted=trusted, local=local)
        return _Known(str(ip_network((address, prefix), strict=False)), trusted=trusted, local=local)


def _parse(text: str) -> Address | None:
    """Return an address without port, brackets and zone; an IPv4 address if an IPv6 one carries it."""
    match = _ADDRESS.fullmatch(text)
    if match is None:
        return None
    try:
        return without_wrapping(ip_address((match[1] or match[2] or match[3]).partition("%")[0]))
    except ValueError:
        return None


def _previous_plain(lines: str) -> tuple[str, str]:
    rest, _, hop = lines.rpartition(",")
    return rest, hop


def _previous_forwarded(lines: str) -> tuple[str, str]:
    """Split RFC 7239's list into the elements before the last, and the address in the last one's `for`.

    It reads from the right, as the walk does: a quotation mark that a client left open cannot hide what proxies added.
    """
    end = len(lines)
    while True:
        comma, quote = lines.rfind(",", 0, end), lines.rfind('"', 0, end)
        if quote <= comma:
            break
        end = lines.rfind('"', 0, quote)
        if end < 0:
            comma = -1
            break
    element = lines[comma + 1 :]
    for pair in element.split(";"):
        name, _, value = pair.strip().partition("=")
        if name.strip().lower() == "for":
            value = value.strip()
            quoted = len(value) > 1 and value[0] == value[-1] == '"'
            return lines[: max(comma, 0)], value[1:-1] if quoted else value
    return lines[: max(comma, 0)], ""


def _network(text: object) -> Network:
    if not isinstance(text, str):
        raise InvalidTypeError(f"trusted_proxies: {text!r:.80} is not a text")
    try:
        network = ip_network(text)
    except ValueError as error:
        raise InvalidInputError(
            f"trusted_proxies: {text!r}: expected a network, an address or {UNIX!r} ({error})"
        ) from None
    unwrapped = network_without_wrapping(network)
    if unwrapped.prefixlen == 0 or any(prefix.subnet_of(network) for prefix in PREFIXES if network.version == 6):  # noqa: PLR2004
        raise InvalidInputError(
            f"trusted_proxies: {text!r} contains every address, or every IPv4 one; then any client could write any address into"
            " the header"
        )
    return unwrapped


def _require_hops(value: object, header: str, proxies: tuple[object, ...]) -> int:
    if type(value) is not int:
        raise InvalidTypeError(f"trusted_hops={value!r:.80}: expected a whole number of proxies")
    if not 0 <= value <= _MAX_HOPS:
        raise InvalidInputError(f"trusted_hops={value}: expected 0 (not counted) to {_MAX_HOPS} proxies")
    if value and header not in _LISTS:
        raise InvalidInputError(
            f"trusted_hops={value}: expected 0 with forwarded_header={header!r}, which holds one address"
        )
    if value and not proxies:
        raise InvalidInputError(
            f"trusted_hops={value}: expected trusted_proxies as well, which say from which peers the header is believed"
        )
    return value


def _require_prefix(field: str, value: object, low: int, high: int) -> int:
    if type(value) is not int:
        raise InvalidTypeError(f"{field}={value!r}: expected a whole number of bits")
    if not low <= value <= high:
        raise InvalidInputError(f"{field}={value}: expected {low} to {high} bits")
    return value
